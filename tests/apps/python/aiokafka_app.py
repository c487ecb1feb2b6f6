#!/usr/bin/env python3
"""aiokafka as an application. PROTOCOL is `range`: aiokafka is eager, and rebalances in the background.

A batch that `getmany` returned may belong to an assignment that is over by the time it is handled: `turns` counts them,
and the lock keeps a rebalance waiting while a batch is handled and committed.
"""

import asyncio
import signal
import sys

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import KafkaError

from app import COMMIT_AFTER_RECORDS, HANDLE_SECONDS, POLL_MS, App

app = App()


async def commit(consumer, partitions=None):
    offsets = app.take(partitions)
    if not offsets:
        return
    try:
        await consumer.commit({TopicPartition(app.topic, p): o for p, o in offsets.items()})
    except KafkaError as error:
        app.refused(offsets, repr(error))
    else:
        app.committed(offsets)


class Listener(ConsumerRebalanceListener):
    def __init__(self, consumer):
        self.consumer, self.lock, self.turns, self.owned = consumer, asyncio.Lock(), 0, []

    async def on_partitions_revoked(self, revoked):
        async with self.lock:
            # After the member was removed there is no assignment that a commit could be for.
            await commit(self.consumer, self.owned)
            app.given_up("revoked", self.owned)
            self.turns, self.owned = self.turns + 1, []

    async def on_partitions_assigned(self, assigned):
        self.owned = sorted(one.partition for one in assigned)
        app.assigned(self.owned, all=True)


async def started():
    """A consumer that has found the broker: it looks for it only once."""
    consumer = AIOKafkaConsumer(bootstrap_servers=app.bootstrap, group_id=app.group, client_id=app.member, auto_offset_reset="earliest",
                                enable_auto_commit=False, fetch_max_wait_ms=POLL_MS, metadata_max_age_ms=1000, session_timeout_ms=app.session_ms,
                                heartbeat_interval_ms=app.heartbeat_ms, request_timeout_ms=10_000, partition_assignment_strategy=(RangePartitionAssignor,))
    try:
        await consumer.start()
    except KafkaError:
        await consumer.stop()
        raise
    return consumer


async def main():
    assert (app.protocol, app.instance) == ("range", "")
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, app.stop)
    consumer = None
    while consumer is None:
        try:
            consumer = await started()
        except KafkaError as error:
            print(repr(error), file=sys.stderr)
            await asyncio.sleep(POLL_MS / 1000)
    listener = Listener(consumer)
    consumer.subscribe([app.topic], listener=listener)
    while not app.stopping:
        try:
            batch = await consumer.getmany(timeout_ms=POLL_MS, max_records=COMMIT_AFTER_RECORDS)
        except KafkaError as error:
            print(repr(error), file=sys.stderr)
            continue
        turn = listener.turns
        async with listener.lock:
            for partition, records in batch.items() if turn == listener.turns else ():
                for record in records:
                    await asyncio.sleep(HANDLE_SECONDS)
                    app.handle(partition.partition, record.offset, record.value)
            if app.commit_due():
                await commit(consumer)
    async with listener.lock:
        await commit(consumer)
    await consumer.stop()
    app.say("closed")


asyncio.run(main())
