// kafkajs against a broker: every acks and codec, idempotence, keys, headers, positions, topic admin.
//
// kafkajs's consumer only works in a group, so records are read with kafkajs's own protocol code one layer below: its
// cluster and its fetch. What decodes the answer is kafkajs either way.
'use strict'

const path = require('path')
const { Kafka, CompressionTypes, CompressionCodecs, logLevel } = require('kafkajs')
const kafkajsHome = path.dirname(require.resolve('kafkajs/package.json'))
const Cluster = require(path.join(kafkajsHome, 'src/cluster'))
const { createLogger } = require(path.join(kafkajsHome, 'src/loggers'))
const silent = require(path.join(kafkajsHome, 'src/loggers/console'))
const socketFactory = require(path.join(kafkajsHome, 'src/network/socketFactory'))

const READ_DEADLINE_MS = 60_000

const at = process.argv.indexOf('--bootstrap')
if (at < 0 || !process.argv[at + 1]) {
  console.error('usage: suite.js --bootstrap HOST:PORT')
  process.exit(2)
}
const bootstrap = process.argv[at + 1]

// kafkajs brings gzip; the other codecs are plugged in. Each is {compress(encoder), decompress(buffer)}.
async function plugCodecs() {
  CompressionCodecs[CompressionTypes.Snappy] = require('kafkajs-snappy')
  const lz4 = require('lz4-napi') // its frames have independent blocks, the only ones that Kafka takes
  CompressionCodecs[CompressionTypes.LZ4] = () => ({
    compress: async encoder => lz4.compressFrame(encoder.buffer),
    decompress: async buffer => lz4.decompressFrame(buffer),
  })
  const zstd = await new Promise(done => require('zstd-codec').ZstdCodec.run(made => done(new made.Simple())))
  CompressionCodecs[CompressionTypes.ZSTD] = () => ({
    compress: async encoder => Buffer.from(zstd.compress(encoder.buffer)),
    decompress: async buffer => Buffer.from(zstd.decompress(buffer)),
  })
}

const kafka = new Kafka({ clientId: 'kafkajs-suite', brokers: [bootstrap], logLevel: logLevel.NOTHING, retry: { retries: 5 } })
const admin = kafka.admin()
let made = 0

function fresh(prefix) {
  made += 1
  return `${prefix}-${Date.now().toString(16)}-${made}`
}

async function create(prefix, numPartitions = 1, configEntries = []) {
  const topic = fresh(prefix)
  await admin.createTopics({ topics: [{ topic, numPartitions, replicationFactor: 1, configEntries }], waitForLeaders: true })
  return topic
}

// The same awkward set as suite.py's: null and empty keys and values, repeated headers, binary and large values.
function records(count = 120) {
  return Array.from({ length: count }, (_, index) => {
    const key = index % 7 === 0 ? null : index % 29 === 3 ? Buffer.alloc(0) : Buffer.from(`key-${index % 10}`)
    let value = null
    if (index % 13 === 4) value = Buffer.alloc(0)
    else if (index % 11 !== 5) {
      value = Buffer.alloc((index * 17) % 900, at => at)
      value = Buffer.concat([Buffer.from(`${index}:`), Buffer.from(value.map((_, i) => (index + i) % 256))])
    }
    const headers = index % 5 === 0 ? { trace: [`${index}`, 'again'], empty: '', 'été': Buffer.from([0, 255]) } : {}
    return { key, value, headers }
  })
}

function plain(record) {
  const bytes = b => (b === null || b === undefined ? null : Buffer.from(b).toString('hex'))
  const headers = Object.entries(record.headers || {}).map(([name, v]) => [name, [].concat(v).map(bytes)])
  return JSON.stringify([bytes(record.key), bytes(record.value), headers])
}

function expect(got, wanted, what) {
  const [g, w] = [JSON.stringify(got), JSON.stringify(wanted)]
  if (g !== w) throw new Error(`${what}: got ${g.slice(0, 600)}, wanted ${w.slice(0, 600)}`)
}

async function withCluster(use) {
  const cluster = new Cluster({
    logger: createLogger({ level: logLevel.NOTHING, logCreator: silent }),
    retry: { retries: 5 },
    socketFactory: socketFactory(),
    brokers: [bootstrap],
    clientId: 'kafkajs-suite',
    connectionTimeout: 5000,
    metadataMaxAge: 300000,
    allowAutoTopicCreation: false,
    offsets: new Map(),
  })
  await cluster.connect()
  try {
    return await use(cluster)
  } finally {
    await cluster.disconnect()
  }
}

// Messages of one partition from `start`, until `count` are there; then one more fetch must bring nothing.
async function read(topic, partition, start, count) {
  return withCluster(async cluster => {
    await cluster.addTargetTopic(topic)
    const nodeId = Object.keys(cluster.findLeaderForPartitions(topic, [partition]))[0]
    const broker = await cluster.findBroker({ nodeId })
    const out = []
    let next = BigInt(start)
    const deadline = Date.now() + READ_DEADLINE_MS
    while (Date.now() < deadline) {
      const { responses } = await broker.fetch({
        replicaId: -1,
        isolationLevel: 1,
        maxWaitTime: 100,
        minBytes: 1,
        maxBytes: 10_000_000,
        topics: [{ topic, partitions: [{ partition, fetchOffset: next.toString(), maxBytes: 5_000_000, currentLeaderEpoch: -1 }] }],
      })
      const messages = responses[0].partitions[0].messages.filter(m => BigInt(m.offset) >= next)
      if (messages.length === 0 && out.length >= count) return out
      if (messages.length > 0) next = BigInt(messages[messages.length - 1].offset) + 1n
      out.push(...messages)
    }
    throw new Error(`waited for ${count} messages of ${topic}/${partition}, have ${out.length}`)
  })
}

async function send(topic, messages, { acks = -1, compression = CompressionTypes.None, idempotent = false } = {}) {
  const producer = kafka.producer({ idempotent, maxInFlightRequests: idempotent ? 1 : null, allowAutoTopicCreation: false })
  await producer.connect()
  try {
    return await producer.send({ topic, acks, compression, messages })
  } finally {
    await producer.disconnect()
  }
}

async function checkPartition(topic, partition, wanted) {
  const got = await read(topic, partition, 0, wanted.length)
  expect(got.map(plain), wanted.map(plain), `records of ${topic}/${partition}`)
  expect(got.map(m => m.offset), wanted.map((_, i) => `${i}`), 'offsets')
}

async function refused(type, call) {
  try {
    await call()
  } catch (error) {
    const types = [error.type, ...(error.errors || []).map(e => e.type)]
    if (!types.includes(type)) throw error
    return
  }
  throw new Error(`not refused with ${type}`)
}

const cases = []

cases.push(['metadata lists the broker and the new topic', async () => {
  const topic = await create('js-meta', 3)
  const { topics } = await admin.fetchTopicMetadata({ topics: [topic] })
  expect(topics[0].partitions.map(p => p.partitionId).sort(), [0, 1, 2], 'partitions')
  expect((await admin.listTopics()).includes(topic), true, 'the topic in the list')
  expect((await admin.describeCluster()).brokers.length >= 1, true, 'a broker')
}])

for (const [name, compression] of Object.entries({ none: 0, gzip: 1, snappy: 2, lz4: 3, zstd: 4 })) {
  for (const [acks, idempotent] of [[0, false], [1, false], [-1, false], [-1, true]]) {
    cases.push([`produce acks=${acks === -1 ? 'all' : acks} ${name}${idempotent ? ' idempotent' : ''}`, async () => {
      const topic = await create('js')
      const what = records()
      const result = await send(topic, what.map(r => ({ ...r, partition: 0 })), { acks, compression, idempotent })
      if (acks !== 0) expect([result[0].errorCode, result[0].baseOffset], [0, '0'], 'acknowledged')
      await checkPartition(topic, 0, what)
    }])
  }
}

cases.push(['keyed records stay together, in order; keyless ones are spread', async () => {
  const topic = await create('js-keyed', 4)
  const what = Array.from({ length: 340 }, (_, i) => ({ key: Buffer.from(`key-${i % 17}`), value: Buffer.from(`${i}`), headers: {} }))
  await send(topic, what)
  const homes = new Map()
  let total = 0
  for (let partition = 0; partition < 4; partition += 1) {
    const { high } = (await admin.fetchTopicOffsets(topic)).find(o => o.partition === partition)
    const got = await read(topic, partition, 0, Number(high))
    total += got.length
    let last = -1
    for (const m of got) {
      const key = m.key.toString()
      if (homes.has(key) && homes.get(key) !== partition) throw new Error(`${key} in two partitions`)
      homes.set(key, partition)
      if (Number(m.value) <= last) throw new Error('out of order')
      last = Number(m.value)
    }
  }
  expect([total, homes.size], [340, 17], 'records and keys')
}])

cases.push(['round-robin over partitions', async () => {
  const topic = await create('js-rr', 3)
  const what = records(90)
  await send(topic, what.map((r, i) => ({ ...r, partition: i % 3 })))
  for (let p = 0; p < 3; p += 1) await checkPartition(topic, p, what.filter((_, i) => i % 3 === p))
}])

cases.push(['one batch of thousands and a value near the size limit', async () => {
  const topic = await create('js-big')
  const many = Array.from({ length: 5000 }, (_, i) => ({ key: Buffer.from(`${i}`), value: Buffer.alloc(100, 'v'), headers: {} }))
  const large = { key: Buffer.from('large'), value: Buffer.alloc(900_000, 7), headers: {} }
  await send(topic, many.map(r => ({ ...r, partition: 0 })))
  await send(topic, [{ ...large, partition: 0 }])
  await checkPartition(topic, 0, [...many, large])
}])

cases.push(['read from an offset; offsets by time, at the beginning and the end', async () => {
  const topic = await create('js-pos')
  const base = Date.now() - 100_000
  await send(topic, Array.from({ length: 100 }, (_, i) => ({ value: `${i}`, partition: 0, timestamp: `${base + i * 100}` })))
  const got = await read(topic, 0, 37, 63)
  expect(got.map(m => [m.value.toString(), m.timestamp]), Array.from({ length: 63 }, (_, i) => [`${i + 37}`, `${base + (i + 37) * 100}`]), 'from offset 37')
  const ends = (await admin.fetchTopicOffsets(topic))[0]
  expect([ends.low, ends.high], ['0', '100'], 'offsets')
  const byTime = async t => (await admin.fetchTopicOffsetsByTimestamp(topic, t))[0].offset
  expect([await byTime(base), await byTime(base + 4200), await byTime(base + 4201)], ['0', '42', '43'], 'offsets by time')
}])

cases.push(['topics: duplicate, more partitions, delete', async () => {
  const topic = await create('js-admin', 2)
  expect(await admin.createTopics({ topics: [{ topic, numPartitions: 2, replicationFactor: 1 }] }), false, 'created twice')
  await refused('INVALID_PARTITIONS', () => admin.createPartitions({ topicPartitions: [{ topic, count: 2 }] }))
  await admin.createPartitions({ topicPartitions: [{ topic, count: 5 }] })
  const deadline = Date.now() + READ_DEADLINE_MS
  while ((await admin.fetchTopicMetadata({ topics: [topic] })).topics[0].partitions.length !== 5) {
    if (Date.now() > deadline) throw new Error('no five partitions')
  }
  await send(topic, records(10).map(r => ({ ...r, partition: 4 })))
  await checkPartition(topic, 4, records(10))
  await admin.deleteTopics({ topics: [topic] })
  while ((await admin.listTopics()).includes(topic)) {
    if (Date.now() > deadline) throw new Error('the topic stays')
  }
}])

async function main() {
  await plugCodecs()
  await admin.connect()
  let [passed, failed] = [0, 0]
  for (const [name, run] of cases) {
    const started = Date.now()
    try {
      await run()
      passed += 1
      console.log(`ok   kafkajs: ${name} (${((Date.now() - started) / 1000).toFixed(1)} s)`)
    } catch (error) {
      failed += 1
      console.log(`${error.stack}\nFAIL kafkajs: ${name}: ${error.message}`)
    }
  }
  await admin.disconnect()
  console.log(`kafkajs: ${passed} passed, ${failed} failed, 0 skipped`)
  process.exit(failed ? 1 : 0)
}

main().catch(error => {
  console.error(error)
  process.exit(1)
})
