#!/usr/bin/env python3
"""kafka-python (a client in pure Python) against a broker: every acks and codec, idempotence, assignment, times, topic admin."""

import time

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka import errors as kafka_errors
from kafka.admin import ConfigResource

from suite import READ_DEADLINE_S, Record, Suite, expect, fresh, records, until

CODECS = (None, "gzip", "snappy", "lz4", "zstd")

suite = Suite("kafka-python")


class Context:
    def __init__(self, bootstrap):
        self.bootstrap = bootstrap
        self.admin = KafkaAdminClient(bootstrap_servers=bootstrap)

    def create(self, prefix, partitions=1, configs=None):
        topic = fresh(prefix)
        self.admin.create_topics({topic: {"num_partitions": partitions, "replication_factor": 1, "configs": configs or {}}}, wait_for_metadata=True)
        return topic

    def send(self, topic, what, partition=None, timestamp=None, **config):
        """Sends all of `what` and returns the (partition, offset) of each."""
        producer = KafkaProducer(bootstrap_servers=self.bootstrap, linger_ms=5, **config)
        try:
            futures = [producer.send(topic, value=r.value, key=r.key, headers=list(r.headers),
                                     partition=partition(i) if callable(partition) else partition,
                                     timestamp_ms=timestamp(i) if timestamp else None) for i, r in enumerate(what)]
            producer.flush(READ_DEADLINE_S)
            done = [future.get(READ_DEADLINE_S) for future in futures]
            return [(d.partition, d.offset) for d in done]
        finally:
            producer.close(READ_DEADLINE_S)

    def consumer(self):
        return KafkaConsumer(bootstrap_servers=self.bootstrap, group_id=None, enable_auto_commit=False, auto_offset_reset="none",
                             fetch_max_wait_ms=100, check_crcs=True)

    def read(self, topic, partition, start, count):
        """`count` messages of one partition from `start` (an offset, or "beginning"), and a moment later still no more."""
        consumer, where, out = self.consumer(), TopicPartition(topic, partition), []
        try:
            consumer.assign([where])
            if start == "beginning":
                consumer.seek_to_beginning(where)
            else:
                consumer.seek(where, start)
            for _ in until(READ_DEADLINE_S, f"{count} messages of {topic}/{partition}"):
                out += consumer.poll(timeout_ms=200).get(where, [])
                if len(out) >= count and consumer.position(where) >= consumer.end_offsets([where])[where]:
                    return out
        finally:
            consumer.close()


def seen(message):
    return Record(message.key, message.value, tuple(message.headers or ()))


def check_partition(c, topic, partition, wanted):
    got = c.read(topic, partition, "beginning", len(wanted))
    expect([seen(m) for m in got], wanted, f"records of {topic}/{partition}")
    expect([m.offset for m in got], list(range(len(wanted))), "offsets")


def sendable(count):
    """kafka-python refuses null header values, and wants a key where the value is null."""
    return [Record(r.key, r.value, tuple((name, value) for name, value in r.headers if value is not None))
            for r in records(count) if r.key is not None or r.value is not None]


@suite.case("metadata lists the broker and the new topic")
def metadata(c):
    topic = c.create("kp-meta", 3)
    expect(topic in c.admin.list_topics(), True, "the topic in the list")
    found = c.admin.describe_topics([topic])[0]
    expect(sorted(p["partition_index"] for p in found["partitions"]), [0, 1, 2], "partitions")
    consumer = c.consumer()
    try:
        expect(consumer.partitions_for_topic(topic), {0, 1, 2}, "partitions for the consumer")
    finally:
        consumer.close()


def produce_case(acks, codec, idempotent):
    @suite.case(f"produce acks={acks} {codec or 'none'}{' idempotent' if idempotent else ''}")
    def produce(c):
        topic, what = c.create("kp"), sendable(120)
        places = c.send(topic, what, partition=0, acks=acks, compression_type=codec, enable_idempotence=idempotent)
        if acks != 0:
            expect(places, [(0, index) for index in range(len(what))], "offsets acknowledged")
        check_partition(c, topic, 0, what)


for codec in CODECS:
    for acks in (0, 1, "all"):
        produce_case(acks, codec, False)
    produce_case("all", codec, True)


@suite.case("keyed records stay together, in order")
def keyed(c):
    topic = c.create("kp-keyed", 4)
    what = [Record(b"key-%d" % (i % 17), b"%d" % i) for i in range(340)]
    places = c.send(topic, what, acks="all")
    expect(len({(r.key, p) for r, (p, _) in zip(what, places)}), 17, "one partition a key")
    for partition in range(4):
        check_partition(c, topic, partition, [r for r, (p, _) in zip(what, places) if p == partition])


@suite.case("round-robin over partitions")
def round_robin(c):
    topic, what = c.create("kp-rr", 3), sendable(90)
    c.send(topic, what, partition=lambda index: index % 3, acks="all")
    for partition in range(3):
        check_partition(c, topic, partition, what[partition::3])


@suite.case("one batch of thousands and values near the size limit")
def big(c):
    topic = c.create("kp-big")
    what = [Record(b"%d" % i, b"v" * 100) for i in range(5000)] + [Record(b"large", bytes([i]) * 900_000) for i in range(3)]
    c.send(topic, what, partition=0, acks="all", batch_size=900_000)
    check_partition(c, topic, 0, what)


@suite.case("read from an offset, from the end, and from a time")
def positions(c):
    topic = c.create("kp-pos")
    where = TopicPartition(topic, 0)
    base = int(time.time() * 1000) - 100_000
    c.send(topic, [Record(None, b"%d" % i) for i in range(100)], partition=0, timestamp=lambda index: base + index * 100, acks="all", batch_size=400)
    got = c.read(topic, 0, 37, 63)
    expect([(m.value, m.timestamp) for m in got], [(b"%d" % i, base + i * 100) for i in range(37, 100)], "from offset 37")
    consumer = c.consumer()
    try:
        expect(consumer.beginning_offsets([where])[where], 0, "beginning")
        expect(consumer.end_offsets([where])[where], 100, "end")
        found = [consumer.offsets_for_times({where: at})[where] for at in (0, base, base + 1, base + 4200, base + 9900, base + 9901)]
        expect([f and (f.offset, f.timestamp) for f in found],
               [(0, base), (0, base), (1, base + 100), (42, base + 4200), (99, base + 9900), None], "offsets for times")
        consumer.assign([where])
        consumer.seek_to_end(where)
        expect(consumer.position(where), 100, "position at the end")
        c.send(topic, [Record(b"k", b"after")], partition=0, acks="all")
        for _ in until(READ_DEADLINE_S, "the record after the end"):
            tail = consumer.poll(timeout_ms=500).get(where, [])
            if tail:
                expect([(m.offset, m.value) for m in tail], [(100, b"after")], "the tail record")
                break
    finally:
        consumer.close()


@suite.case("an offset out of range is reported")
def out_of_range(c):
    topic = c.create("kp-oor")
    consumer, where = c.consumer(), TopicPartition(topic, 0)
    try:
        consumer.assign([where])
        consumer.seek(where, 500)
        for _ in until(READ_DEADLINE_S, "the error"):
            try:
                consumer.poll(timeout_ms=500)
            except (kafka_errors.OffsetOutOfRangeError, kafka_errors.NoOffsetForPartitionError):
                break
    finally:
        consumer.close()


@suite.case("topics: duplicate, more partitions, delete")
def topic_admin(c):
    topic = c.create("kp-admin", 2)

    def refused(error, call):
        try:
            call()
        except error:
            return
        raise AssertionError(f"not refused with {error.__name__}")

    refused(kafka_errors.TopicAlreadyExistsError, lambda: c.admin.create_topics({topic: {"num_partitions": 2, "replication_factor": 1}}))
    refused(kafka_errors.InvalidReplicationFactorError, lambda: c.admin.create_topics({fresh("kp-bad"): {"num_partitions": 1, "replication_factor": 9}}))
    refused(kafka_errors.InvalidPartitionsError, lambda: c.admin.create_partitions({topic: 2}))
    c.admin.create_partitions({topic: 5})
    for _ in until(READ_DEADLINE_S, "five partitions"):
        if len(c.admin.describe_topics([topic])[0]["partitions"]) == 5:
            break
    c.send(topic, sendable(10), partition=4, acks="all")
    check_partition(c, topic, 4, sendable(10))
    c.admin.delete_topics([topic])
    for _ in until(READ_DEADLINE_S, "the topic to go"):
        if topic not in c.admin.list_topics():
            break
    refused(kafka_errors.UnknownTopicOrPartitionError, lambda: c.admin.delete_topics([topic]))


@suite.case("records deleted from the front")
def records_deleted(c):
    topic, what = c.create("kp-front"), sendable(40)
    c.send(topic, what, partition=0, acks="all")
    where, count = TopicPartition(topic, 0), len(what)
    deleted = c.admin.delete_records({where: 20})
    expect(next(iter(deleted.values()))["low_watermark"], 20, "low watermark")
    got = c.read(topic, 0, "beginning", count - 20)
    expect([m.offset for m in got], list(range(20, count)), "offsets that are left")
    try:
        c.admin.delete_records({where: count + 1})
        raise AssertionError("records were deleted that are not there")
    except kafka_errors.OffsetOutOfRangeError:
        pass


@suite.case("configs: altered, described, out of the question")
def configs(c):
    topic = c.create("kp-configs")

    def resource(**changes):
        return ConfigResource("topic", topic, configs={key.replace("_", "."): value for key, value in changes.items()} or None)

    c.admin.alter_configs([resource(retention_ms="3600000", segment_ms="7200000")])
    c.admin.alter_configs([resource(segment_ms=("delete", None))])
    told = str(c.admin.describe_configs([resource()]))
    expect(("3600000" in told, "7200000" in told), (True, False), told)
    refused = str(c.admin.alter_configs([resource(retention_ms="-7")]))
    expect("InvalidConfigurationError" in refused, True, refused)


if __name__ == "__main__":
    suite.main(Context)
