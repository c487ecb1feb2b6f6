#!/usr/bin/env python3
"""kafka-python as an application. PROTOCOL is `range`.

Its rebalances run on a thread of its own while `poll` waits; a listener can commit there only if it is asynchronous.
"""

import sys
import time

from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.subscription_state import AsyncConsumerRebalanceListener
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.errors import KafkaError
from kafka.structs import OffsetAndMetadata

from app import COMMIT_AFTER_RECORDS, HANDLE_SECONDS, POLL_MS, App

# A shorter one than a rebalance takes makes it return early again and again, which 3.0.12 does not always survive.
POLL_SECONDS = 2
app = App()


def named(offsets):
    return {TopicPartition(app.topic, p): OffsetAndMetadata(o, "", -1) for p, o in offsets.items()}


def commit(consumer):
    offsets = app.take()
    if not offsets:
        return
    try:
        consumer.commit(named(offsets))
    except KafkaError as error:
        app.refused(offsets, repr(error))
    else:
        app.committed(offsets)


def numbers(partitions):
    return [one.partition for one in partitions]


class Listener(AsyncConsumerRebalanceListener):
    def __init__(self, consumer):
        self.consumer = consumer

    async def on_partitions_revoked(self, revoked):
        offsets = app.take(numbers(revoked))
        if offsets:
            try:
                await self.consumer.commit_async(named(offsets))
            except KafkaError as error:
                app.refused(offsets, repr(error))
            else:
                app.committed(offsets)
        app.given_up("revoked", numbers(revoked))

    async def on_partitions_lost(self, lost):
        app.given_up("lost", numbers(lost))

    async def on_partitions_assigned(self, assigned):
        app.assigned(numbers(assigned))


def main():
    assert (app.protocol, app.instance) == ("range", "")
    consumer = KafkaConsumer(bootstrap_servers=app.bootstrap, group_id=app.group, client_id=app.member, auto_offset_reset="earliest",
                             enable_auto_commit=False, fetch_max_wait_ms=POLL_MS, metadata_max_age_ms=1000, session_timeout_ms=app.session_ms,
                             heartbeat_interval_ms=app.heartbeat_ms, max_poll_records=COMMIT_AFTER_RECORDS, reconnect_backoff_max_ms=500,
                             partition_assignment_strategy=(RangePartitionAssignor,))
    consumer.subscribe([app.topic], listener=Listener(consumer))
    while not app.stopping:
        try:
            batch = consumer.poll(timeout_ms=POLL_SECONDS * 1000)
        except KafkaError as error:
            print(repr(error), file=sys.stderr)
            continue
        for partition, records in batch.items():
            for record in records:
                time.sleep(HANDLE_SECONDS)
                app.handle(partition.partition, record.offset, record.value)
        if app.commit_due():
            commit(consumer)
    commit(consumer)
    consumer.close()
    app.say("closed")


main()
