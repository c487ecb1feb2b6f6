// kafkajs as an application, by the contract of tests/apps/journal.py:
// BOOTSTRAP TOPIC GROUP PROTOCOL MEMBER SESSION-MS INSTANCE. It is eager, has no static members, and shares by round robin; PROTOCOL says so.
//
// kafkajs does not tell of every rebalance before it, so a partition's batch is committed when it ends. What it takes for
// final, such as a coordinator that is away for too long, ends its consumer; then there is a new one, as its users do it.
'use strict'

const fs = require('fs')
const { Kafka, logLevel } = require('kafkajs')

const HANDLE_MS = 2
const RECONNECT_MS = 200
const WAIT_MS = 300
const [bootstrap, topic, groupId, protocol, member, session, instance] = process.argv.slice(2)
if (protocol !== 'roundrobin' || instance !== '') {
  console.error('usage: app.js BOOTSTRAP TOPIC GROUP roundrobin MEMBER SESSION-MS ""')
  process.exit(2)
}
const say = (e, more) => fs.writeSync(1, JSON.stringify({ m: member, e, ...more }) + '\n')

const kafka = new Kafka({ clientId: member, brokers: [bootstrap], logLevel: logLevel.WARN, retry: { initialRetryTime: 100, maxRetryTime: 1000, retries: 60 } })
let consumer = null
let owned = []
let stopping = false
let handling = Promise.resolve()

function givenUp(event) {
  say(event, { p: owned })
  owned = []
}

async function begin() {
  consumer = kafka.consumer({ groupId, sessionTimeout: Number(session), heartbeatInterval: session / 6, metadataMaxAge: 1000,
    maxWaitTimeInMs: WAIT_MS, minBytes: 10_000, rebalanceTimeout: 10_000 })
  consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => {
    owned = payload.memberAssignment[topic] || []
    say('assigned', { p: owned, all: true })
  })
  consumer.on(consumer.events.REBALANCING, () => givenUp('revoked'))
  consumer.on(consumer.events.CRASH, ({ payload }) => {
    console.error('crash', payload.error)
    givenUp('lost')
    if (!payload.restart && !stopping) begin().catch(failed)
  })
  await connected()
  await consumer.subscribe({ topic, fromBeginning: true })
  await consumer.run({ autoCommit: false, eachBatchAutoResolve: false, eachBatch })
}

// A broker that goes away between two requests of its own makes the client give up instead of trying again.
async function connected() {
  for (;;) {
    try {
      return await consumer.connect()
    } catch (error) {
      if (!error.retriable) throw error
      console.error(error)
      await new Promise(done => setTimeout(done, RECONNECT_MS))
    }
  }
}

const eachBatch = payload => { handling = handle(payload); return handling }

async function handle({ batch, resolveOffset, heartbeat, isRunning, isStale }) {
  let next = null
  for (const message of batch.messages) {
    if (stopping || !isRunning() || isStale()) break
    await new Promise(done => setTimeout(done, HANDLE_MS))
    say('handled', { p: batch.partition, o: Number(message.offset), v: message.value.toString() })
    next = Number(message.offset) + 1
    resolveOffset(message.offset)
  }
  if (next === null) return
  const offsets = { [batch.partition]: next }
  try {
    await consumer.commitOffsets([{ topic, partition: batch.partition, offset: `${next}` }])
    // A consumer that is being stopped says nothing when it does not commit.
    if (!isRunning()) throw new Error('it may not have been sent')
    say('committed', { o: offsets })
  } catch (error) {
    say('refused', { o: offsets, why: `${error}` })
    throw error
  }
  await heartbeat()
}

async function stop() {
  stopping = true
  await handling.catch(() => {})
  await consumer.disconnect()
  say('closed')
  process.exit(0)
}

function failed(error) {
  console.error(error)
  process.exit(1)
}

process.on('SIGTERM', () => stop().catch(failed))
begin().catch(failed)
