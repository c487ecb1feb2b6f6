#!/usr/bin/env python3
"""confluent-kafka (librdkafka) as an application. PROTOCOL is an assignor of the classic protocol, or `consumer` (KIP-848)."""

import os
import sys
import time

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from app import FENCED, HANDLE_SECONDS, POLL_MS, App

app = App()


def config():
    common = {"bootstrap.servers": app.bootstrap, "group.id": app.group, "client.id": app.member, "auto.offset.reset": "earliest",
              "enable.auto.commit": False, "fetch.wait.max.ms": POLL_MS, "topic.metadata.refresh.interval.ms": 1000, "reconnect.backoff.max.ms": 500}
    if app.protocol == "consumer":
        return {**common, "group.protocol": "consumer"}
    if app.instance:
        common["group.instance.id"] = app.instance
    return {**common, "partition.assignment.strategy": app.protocol, "session.timeout.ms": app.session_ms, "heartbeat.interval.ms": app.heartbeat_ms}


def commit(consumer, partitions=None):
    offsets = app.take(partitions)
    if not offsets:
        return
    try:
        answer = consumer.commit(offsets=[TopicPartition(app.topic, p, o) for p, o in offsets.items()], asynchronous=False)
        for one in answer:
            if one.error:
                raise KafkaException(one.error)
    except KafkaException as error:
        app.refused(offsets, error.args[0])
        end_if_fenced(error.args[0])
    else:
        app.committed(offsets)


def end_if_fenced(error):
    """A heartbeat may learn of it before a commit does: the client then tells it once, in the place of a record, and is silent
    from then on. There is nothing that it could close."""
    if error.code() in (KafkaError.FENCED_INSTANCE_ID, KafkaError._FATAL):
        os._exit(FENCED)


def numbers(partitions):
    return [one.partition for one in partitions]


def revoked(consumer, partitions):
    commit(consumer, numbers(partitions))
    app.given_up("revoked", numbers(partitions))


def main():
    consumer = Consumer(config())
    consumer.subscribe([app.topic], on_assign=lambda _, p: app.assigned(numbers(p)), on_revoke=revoked,
                       on_lost=lambda _, p: app.given_up("lost", numbers(p)))
    while not app.stopping:
        message = consumer.poll(POLL_MS / 1000)
        if message is not None and message.error():
            print(message.error(), file=sys.stderr)
            end_if_fenced(message.error())
        elif message is not None:
            time.sleep(HANDLE_SECONDS)
            app.handle(message.partition(), message.offset(), message.value())
        if app.commit_due():
            commit(consumer)
    consumer.close()
    app.say("closed")


main()
