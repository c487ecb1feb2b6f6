// kafkajs in consumer groups: commits and resumption, members that come and go, offsets by an admin.
'use strict'

const { Kafka, logLevel } = require('kafkajs')

const READ_DEADLINE_MS = 60_000
const PARTITIONS = 4

const at = process.argv.indexOf('--bootstrap')
if (at < 0 || !process.argv[at + 1]) {
  console.error('usage: groups.js --bootstrap HOST:PORT')
  process.exit(2)
}
const kafka = new Kafka({ clientId: 'kafkajs-groups', brokers: [process.argv[at + 1]], logLevel: logLevel.NOTHING, retry: { retries: 8 } })
const admin = kafka.admin()
const producer = kafka.producer()
const cases = []
let made = 0

function fresh(prefix) {
  made += 1
  return `${prefix}-${Date.now().toString(16)}-${made}`
}

function expect(got, wanted, what) {
  const [a, b] = [JSON.stringify(got), JSON.stringify(wanted)]
  if (a !== b) throw new Error(`${what}: got ${a}, wanted ${b}`)
}

async function until(what, done) {
  const deadline = Date.now() + READ_DEADLINE_MS
  while (!done()) {
    if (Date.now() > deadline) throw new Error(`waited for ${what}`)
    await new Promise(next => setTimeout(next, 20))
  }
}

async function create() {
  const topic = fresh('js-group')
  await admin.createTopics({ topics: [{ topic, numPartitions: PARTITIONS, replicationFactor: 1 }], waitForLeaders: true })
  return topic
}

const values = (first, count) => Array.from({ length: count }, (_, i) => `${first + i}`)

const send = (topic, what) => producer.send({ topic, acks: -1, messages: what.map((value, i) => ({ value, partition: i % PARTITIONS })) })

// A member, what it has read, and which partitions it has.
async function member(groupId, topic) {
  const consumer = kafka.consumer({ groupId, maxWaitTimeInMs: 100, heartbeatInterval: 300, rebalanceTimeout: 10_000 })
  const one = { consumer, got: [], partitions: [] }
  consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => { one.partitions = payload.memberAssignment[topic] || [] })
  await consumer.connect()
  await consumer.subscribe({ topic, fromBeginning: true })
  await consumer.run({ eachMessage: async ({ message }) => { one.got.push(message.value.toString()) } })
  return one
}

const sorted = list => [...list].sort()
const owned = members => sorted(members.flatMap(one => one.partitions)).join() === '0,1,2,3'

cases.push(['what was committed is where the next one resumes', async () => {
  const [topic, group] = [await create(), fresh('js-resume')]
  await send(topic, values(0, 60))
  const first = await member(group, topic)
  await until('60 messages', () => first.got.length >= 60)
  expect(sorted(first.got), sorted(values(0, 60)), 'what the first one reads')
  await first.consumer.disconnect() // commits what it has handled
  const offsets = await admin.fetchOffsets({ groupId: group, topics: [topic] })
  expect(sorted(offsets[0].partitions.map(p => `${p.partition}:${p.offset}`)), ['0:15', '1:15', '2:15', '3:15'], 'committed')
  await send(topic, values(60, 8))
  const second = await member(group, topic)
  await until('8 messages', () => second.got.length >= 8)
  expect(sorted(second.got), sorted(values(60, 8)), 'what the second one reads')
  await second.consumer.disconnect()
}])

cases.push(['two members share the partitions, the one that stays takes over', async () => {
  const [topic, group] = [await create(), fresh('js-share')]
  const both = await Promise.all([member(group, topic), member(group, topic)])
  const [stays, goes] = both
  await until('two partitions each', () => both.every(one => one.partitions.length === 2) && owned(both))
  await send(topic, values(0, 40))
  await until('40 messages', () => stays.got.length + goes.got.length >= 40)
  expect(sorted([...stays.got, ...goes.got]), sorted(values(0, 40)), 'what both read, each once')
  await goes.consumer.disconnect()
  await until('four partitions', () => stays.partitions.length === 4)
  const before = stays.got.length
  await send(topic, values(40, 40))
  await until('40 more', () => stays.got.length >= before + 40)
  expect(sorted(stays.got.slice(before)), sorted(values(40, 40)), 'what the one that stays reads')
  await stays.consumer.disconnect()
}])

cases.push(['groups are described, their offsets reset, and they are deleted', async () => {
  const [topic, group] = [await create(), fresh('js-admin')]
  await send(topic, values(0, 8))
  const one = await member(group, topic)
  await until('8 messages', () => one.got.length >= 8)
  const described = (await admin.describeGroups([group])).groups[0]
  expect([described.state, described.protocolType, described.members.length], ['Stable', 'consumer', 1], 'described')
  await one.consumer.disconnect()
  await admin.resetOffsets({ groupId: group, topic, earliest: true })
  const again = await member(group, topic)
  await until('8 messages again', () => again.got.length >= 8)
  await again.consumer.disconnect()
  expect((await admin.listGroups()).groups.some(listed => listed.groupId === group), true, 'listed')
  await admin.deleteGroups([group])
  expect((await admin.listGroups()).groups.some(listed => listed.groupId === group), false, 'listed when deleted')
}])

async function main() {
  await Promise.all([admin.connect(), producer.connect()])
  let [passed, failed] = [0, 0]
  for (const [name, run] of cases) {
    const started = Date.now()
    try {
      await run()
      passed += 1
      console.log(`ok   kafkajs-groups: ${name} (${((Date.now() - started) / 1000).toFixed(1)} s)`)
    } catch (error) {
      failed += 1
      console.log(`${error.stack}\nFAIL kafkajs-groups: ${name}: ${error.message}`)
    }
  }
  await Promise.all([admin.disconnect(), producer.disconnect()])
  console.log(`kafkajs-groups: ${passed} passed, ${failed} failed, 0 skipped`)
  process.exit(failed ? 1 : 0)
}

main().catch(error => {
  console.error(error)
  process.exit(1)
})
