#!/usr/bin/env python3
"""confluent-kafka (librdkafka) against a broker: every acks and codec, idempotence, assignment, times, topic admin."""

import time

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaError, KafkaException, Producer, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, NewTopic

from suite import READ_DEADLINE_S, Record, Suite, expect, fresh, records, until

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
ADMIN_TIMEOUT_S = 20

suite = Suite("confluent-kafka")


class Context:
    def __init__(self, bootstrap):
        self.bootstrap = bootstrap
        self.admin = AdminClient({"bootstrap.servers": bootstrap})

    def create(self, prefix, partitions=1, config=None):
        topic = fresh(prefix)
        new = NewTopic(topic, num_partitions=partitions, replication_factor=1, config=config or {})
        self.admin.create_topics([new], operation_timeout=ADMIN_TIMEOUT_S)[topic].result(ADMIN_TIMEOUT_S)
        return topic

    def producer(self, **more):
        return Producer({"bootstrap.servers": self.bootstrap, "linger.ms": 5, **{k.replace("_", "."): v for k, v in more.items()}})

    def consumer(self):
        # A group.id is required by the constructor; nothing here ever joins it or commits.
        return Consumer({"bootstrap.servers": self.bootstrap, "group.id": "never-joined", "enable.auto.commit": False,
                         "enable.partition.eof": True, "auto.offset.reset": "error",
                         "check.crcs": True, "fetch.wait.max.ms": 100})

    def send(self, topic, what, partition=None, timestamp=0, **config):
        """Sends all of `what`, waits for every delivery report and returns the (partition, offset) of each."""
        producer, places, errors = self.producer(**config), [None] * len(what), []
        for index, record in enumerate(what):
            def delivered(error, message, index=index):
                if error is not None:
                    errors.append(error)
                else:
                    places[index] = (message.partition(), message.offset())

            more = {} if partition is None else {"partition": partition(index) if callable(partition) else partition}
            producer.produce(topic, key=record.key, value=record.value, headers=list(record.headers) or None,
                             timestamp=timestamp(index) if callable(timestamp) else timestamp, on_delivery=delivered, **more)
            producer.poll(0)
        left = producer.flush(READ_DEADLINE_S)
        expect((left, errors), (0, []), "undelivered messages and errors")
        return places

    def read(self, topic, partition, start, count):
        """`count` messages of one partition from `start`, then the end of the partition and nothing else."""
        consumer, out = self.consumer(), []
        try:
            consumer.assign([TopicPartition(topic, partition, start)])
            for _ in until(READ_DEADLINE_S, f"{count} messages of {topic}/{partition}, have {len(out)}"):
                message = consumer.poll(1.0)
                if message is None:
                    continue
                if message.error():
                    if message.error().code() == KafkaError._PARTITION_EOF:
                        if len(out) >= count:
                            return out
                        continue
                    raise KafkaException(message.error())
                out.append(message)
        finally:
            consumer.close()


def seen(message):
    return Record(message.key(), message.value(), tuple(message.headers() or ()))


def check_partition(context, topic, partition, wanted, first=0):
    got = context.read(topic, partition, OFFSET_BEGINNING, len(wanted))
    expect([seen(m) for m in got], wanted, f"records of {topic}/{partition}")
    expect([m.offset() for m in got], list(range(first, first + len(wanted))), "offsets")


@suite.case("metadata lists the broker and the new topic")
def metadata(c):
    topic = c.create("meta", 3)
    for _ in until(READ_DEADLINE_S, "the topic in the list"):
        listed = c.admin.list_topics(timeout=ADMIN_TIMEOUT_S)
        if topic in listed.topics:
            break
    found = listed.topics[topic]
    expect(sorted(found.partitions), [0, 1, 2], "partitions")
    for partition in found.partitions.values():
        expect(partition.error, None, "partition error")
        expect(partition.leader in listed.brokers, True, "leader among the brokers")
        expect((partition.replicas, partition.isrs), ([partition.leader], [partition.leader]), "replicas and in-sync replicas")
    cluster = c.admin.describe_cluster(request_timeout=ADMIN_TIMEOUT_S).result(ADMIN_TIMEOUT_S)
    expect(bool(cluster.cluster_id), True, "a cluster id")
    expect(len(cluster.nodes) >= 1, True, "a node")


def produce_case(acks, codec, idempotent):
    title = f"produce acks={acks} {codec}{' idempotent' if idempotent else ''}"

    @suite.case(title)
    def produce(c):
        topic, what = c.create("p"), records()
        places = c.send(topic, what, partition=0, acks=acks, compression_type=codec, enable_idempotence=idempotent)
        if acks != "0":
            expect(places, [(0, index) for index in range(len(what))], "offsets acknowledged")
        check_partition(c, topic, 0, what)


for codec in CODECS:
    for acks in ("0", "1", "all"):
        produce_case(acks, codec, False)
    produce_case("all", codec, True)


@suite.case("keyed records go where murmur2 says and keep their order")
def keyed(c):
    topic = c.create("keyed", 4)
    what = [Record(b"key-%d" % (i % 17), b"%d" % i) for i in range(340)]
    places = c.send(topic, what, acks="all", partitioner="murmur2_random")
    wanted = {p: [] for p in range(4)}
    for record, (partition, _) in zip(what, places):
        expect(partition, (murmur2(record.key) & 0x7FFFFFFF) % 4, f"partition of {record.key}")
        wanted[partition].append(record)
    for partition in range(4):
        check_partition(c, topic, partition, wanted[partition])


@suite.case("round-robin over partitions")
def round_robin(c):
    topic, what = c.create("rr", 3), records(90)
    c.send(topic, what, partition=lambda index: index % 3, acks="all")
    for partition in range(3):
        check_partition(c, topic, partition, what[partition::3])


@suite.case("one batch of thousands and values near the size limit")
def big(c):
    topic = c.create("big", 1)
    what = [Record(b"%d" % i, b"v" * 100) for i in range(8000)] + [Record(b"large", bytes([i]) * 900_000) for i in range(4)]
    c.send(topic, what, partition=0, acks="all", linger_ms=200, batch_size=1_000_000, batch_num_messages=10_000, enable_idempotence=True)
    check_partition(c, topic, 0, what)


@suite.case("a record above max.message.bytes is refused, the next is taken")
def too_large(c):
    topic = c.create("toolarge", 1, {"max.message.bytes": "20000"})
    errors = []
    producer = c.producer(acks="all", message_max_bytes=2_000_000)
    producer.produce(topic, value=b"x" * 50_000, partition=0, on_delivery=lambda error, _: errors.append(error.code() if error else None))
    producer.flush(READ_DEADLINE_S)
    producer.produce(topic, value=b"small", partition=0, on_delivery=lambda error, _: errors.append(error.code() if error else None))
    producer.flush(READ_DEADLINE_S)
    expect(errors, [KafkaError.MSG_SIZE_TOO_LARGE, None], "delivery reports")
    check_partition(c, topic, 0, [Record(None, b"small")])


@suite.case("an unknown topic is an error, not a hang")
def unknown_topic(c):
    errors = []
    producer = c.producer(acks="all", message_timeout_ms=8000, topic_metadata_propagation_max_ms=1000)
    try:
        producer.produce("never made: not a legal name!", value=b"x", on_delivery=lambda error, _: errors.append(error))
    except KafkaException as error:
        errors.append(error)
    producer.flush(20)
    expect(len(errors) == 1 and errors[0] is not None, True, "one error")


@suite.case("read from an offset, from the end, and from a time")
def positions(c):
    topic = c.create("pos")
    base = int(time.time() * 1000) - 100_000
    what = [Record(None, b"%d" % i) for i in range(100)]
    c.send(topic, what, partition=0, timestamp=lambda index: base + index * 100, acks="all", batch_num_messages=10)
    got = c.read(topic, 0, 37, 63)
    expect([m.value() for m in got], [b"%d" % i for i in range(37, 100)], "from offset 37")
    expect([m.timestamp()[1] for m in got], [base + i * 100 for i in range(37, 100)], "timestamps")
    consumer = c.consumer()
    try:
        expect(consumer.get_watermark_offsets(TopicPartition(topic, 0), ADMIN_TIMEOUT_S), (0, 100), "watermarks")
        found = [consumer.offsets_for_times([TopicPartition(topic, 0, at)], ADMIN_TIMEOUT_S)[0].offset
                 for at in (0, base, base + 1, base + 4200, base + 4201, base + 9900, base + 9901)]
        expect(found, [0, 0, 1, 42, 43, 99, OFFSET_END], "offsets for times")
        consumer.assign([TopicPartition(topic, 0, OFFSET_END)])
        for _ in until(READ_DEADLINE_S, "the end of the partition"):
            message = consumer.poll(1.0)
            if message is not None:
                expect(message.error() and message.error().code(), KafkaError._PARTITION_EOF, "at the end")
                break
        c.send(topic, [Record(b"k", b"after")], partition=0, acks="all")
        for _ in until(READ_DEADLINE_S, "the record after the end"):
            message = consumer.poll(1.0)
            if message is not None and not message.error():
                expect((message.offset(), message.value()), (100, b"after"), "the tail record")
                break
    finally:
        consumer.close()


@suite.case("an offset out of range is reported")
def out_of_range(c):
    topic = c.create("oor")
    c.send(topic, [Record(None, b"only")], partition=0, acks="all")
    consumer = c.consumer()
    try:
        consumer.assign([TopicPartition(topic, 0, 500)])
        for _ in until(READ_DEADLINE_S, "an error"):
            message = consumer.poll(1.0)
            if message is not None and message.error() and message.error().code() != KafkaError._PARTITION_EOF:
                expect(message.error().code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE), True, str(message.error()))
                break
    finally:
        consumer.close()


@suite.case("several idempotent producers on one topic, nothing lost or doubled")
def many_producers(c):
    topic = c.create("many", 2)
    producers = [c.producer(acks="all", enable_idempotence=True, linger_ms=1) for _ in range(4)]
    for index in range(2000):
        producers[index % 4].produce(topic, value=b"%d" % index, partition=index % 2)
    for producer in producers:
        expect(producer.flush(READ_DEADLINE_S), 0, "undelivered")
    got = sorted(int(m.value()) for partition in range(2) for m in c.read(topic, partition, OFFSET_BEGINNING, 1000))
    expect(got, list(range(2000)), "every value once")


@suite.case("LogAppendTime topics answer and serve the broker's time")
def log_append_time(c):
    topic = c.create("lat", 1, {"message.timestamp.type": "LogAppendTime"})
    before = int(time.time() * 1000) - 1000
    c.send(topic, records(20), partition=0, timestamp=12345, acks="all")
    for message in c.read(topic, 0, OFFSET_BEGINNING, 20):
        kind, at = message.timestamp()
        expect((kind, at >= before), (2, True), f"timestamp type and time {at}")


def refusal(future):
    """The error code that a call of the admin client ends with."""
    try:
        future.result(ADMIN_TIMEOUT_S)
    except KafkaException as error:
        return error.args[0].code()
    return KafkaError.NO_ERROR


@suite.case("topics: duplicate, bad count, more partitions, delete")
def topic_admin(c):
    topic = c.create("admin", 2)

    again = c.admin.create_topics([NewTopic(topic, 2, 1)])[topic]
    expect(refusal(again), KafkaError.TOPIC_ALREADY_EXISTS, "created twice")
    name = fresh("badrf")
    expect(refusal(c.admin.create_topics([NewTopic(name, 1, 9)])[name]), KafkaError.INVALID_REPLICATION_FACTOR, "9 replicas")
    name = fresh("badcfg")
    expect(refusal(c.admin.create_topics([NewTopic(name, 1, 1, config={"no.such.config": "1"})])[name]), KafkaError.INVALID_CONFIG, "unknown config")
    name = fresh("dry")
    expect(refusal(c.admin.create_topics([NewTopic(name, 1, 1)], validate_only=True)[name]), KafkaError.NO_ERROR, "validated only")
    expect(name in c.admin.list_topics(timeout=ADMIN_TIMEOUT_S).topics, False, "a validated topic in the list")
    expect(refusal(c.admin.create_partitions([NewPartitions(topic, 2)])[topic]), KafkaError.INVALID_PARTITIONS, "no more than before")
    expect(refusal(c.admin.create_partitions([NewPartitions(topic, 5)])[topic]), KafkaError.NO_ERROR, "five partitions")
    for _ in until(READ_DEADLINE_S, "five partitions"):
        if len(c.admin.list_topics(topic, timeout=ADMIN_TIMEOUT_S).topics[topic].partitions) == 5:
            break
    c.send(topic, records(10), partition=4, acks="all")
    check_partition(c, topic, 4, records(10))
    expect(refusal(c.admin.delete_topics([topic])[topic]), KafkaError.NO_ERROR, "delete")
    for _ in until(READ_DEADLINE_S, "the topic to go"):
        if topic not in c.admin.list_topics(timeout=ADMIN_TIMEOUT_S).topics:
            break
    expect(refusal(c.admin.delete_topics([topic])[topic]), KafkaError.UNKNOWN_TOPIC_OR_PART, "delete twice")


@suite.case("records deleted from the front")
def records_deleted(c):
    topic, what = c.create("front", 2), records(40)
    c.send(topic, what, partition=0, acks="all")
    where = TopicPartition(topic, 0, 25)
    deleted = c.admin.delete_records([where], request_timeout=ADMIN_TIMEOUT_S)[where].result(ADMIN_TIMEOUT_S)
    expect(deleted.low_watermark, 25, "low watermark")
    consumer = c.consumer()
    expect(consumer.get_watermark_offsets(TopicPartition(topic, 0), ADMIN_TIMEOUT_S), (25, 40), "watermarks")
    consumer.close()
    # A batch is served whole; the client passes over what lies before its position.
    check_partition(c, topic, 0, what[25:], first=25)
    where = TopicPartition(topic, 0, 41)
    expect(refusal(c.admin.delete_records([where])[where]), KafkaError.OFFSET_OUT_OF_RANGE, "more than there is")
    where = TopicPartition(topic, 0, OFFSET_END)
    expect(c.admin.delete_records([where])[where].result(ADMIN_TIMEOUT_S).low_watermark, 40, "everything")


@suite.case("configs described")
def configs_described(c):
    topic = c.create("configs", 1, {"retention.ms": "123456"})
    described = c.admin.describe_configs([ConfigResource(ConfigResource.Type.TOPIC, topic)])
    entries = list(described.values())[0].result(ADMIN_TIMEOUT_S)
    expect((entries["retention.ms"].value, entries["retention.ms"].is_default), ("123456", False), "a config of the topic")
    expect((entries["max.message.bytes"].value, entries["max.message.bytes"].is_default), ("1048588", True), "a default")
    broker = next(iter(c.admin.list_topics(timeout=ADMIN_TIMEOUT_S).brokers))
    described = c.admin.describe_configs([ConfigResource(ConfigResource.Type.BROKER, str(broker))])
    entries = list(described.values())[0].result(ADMIN_TIMEOUT_S)
    expect(entries["message.max.bytes"].value, "1048588", "a config of the broker")
    missing = c.admin.describe_configs([ConfigResource(ConfigResource.Type.TOPIC, fresh("missing"))])
    try:
        list(missing.values())[0].result(ADMIN_TIMEOUT_S)
        raise AssertionError("configs of a topic that is not there")
    except KafkaException as error:
        expect(error.args[0].code(), KafkaError.UNKNOWN_TOPIC_OR_PART, "error code")


def described(c, kind, name):
    """What `name` sets itself, and every config with its value."""
    entries = list(c.admin.describe_configs([ConfigResource(kind, name)]).values())[0].result(ADMIN_TIMEOUT_S)
    own = {key: entry.value for key, entry in entries.items() if entry.source in (1, 2, 8)}
    return own, {key: entry.value for key, entry in entries.items()}


def altered(c, kind, name, *changes, validate_only=False):
    """The error code of changing a resource: (key, operation, value) each."""
    entries = [ConfigEntry(key, value, incremental_operation=AlterConfigOpType[op]) for key, op, value in changes]
    futures = c.admin.incremental_alter_configs([ConfigResource(kind, name, incremental_configs=entries)], validate_only=validate_only)
    return refusal(list(futures.values())[0])


@suite.case("configs altered: a topic's count at once, all or none of them")
def configs_altered(c):
    kind, topic = ConfigResource.Type.TOPIC, c.create("alter", 1)
    code = altered(c, kind, topic, ("max.message.bytes", "SET", "1000"), ("retention.ms", "SET", "3600000"), validate_only=True)
    expect((code, described(c, kind, topic)[0]), (KafkaError.NO_ERROR, {}), "validated only")
    code = altered(c, kind, topic, ("max.message.bytes", "SET", "1000"), ("retention.ms", "SET", "3600000"))
    expect((code, described(c, kind, topic)[0]), (KafkaError.NO_ERROR, {"max.message.bytes": "1000", "retention.ms": "3600000"}), "set")
    errors, producer = [], c.producer(acks="all")
    producer.produce(topic, value=b"x" * 2000, on_delivery=lambda error, _: errors.append(error.code()))
    producer.flush(READ_DEADLINE_S)
    expect(errors, [KafkaError.MSG_SIZE_TOO_LARGE], "a record above the new limit")
    for change, wanted in (((("no.such", "SET", "1"),), KafkaError.INVALID_CONFIG), ((("retention.ms", "SET", "-7"),), KafkaError.INVALID_CONFIG),
                           ((("segment.ms", "SET", "1000"), ("retention.ms", "SET", "x")), KafkaError.INVALID_CONFIG),
                           ((("retention.ms", "APPEND", "1"),), KafkaError.INVALID_CONFIG)):
        expect(altered(c, kind, topic, *change), wanted, str(change))
    expect(altered(c, kind, fresh("missing"), ("retention.ms", "SET", "1")), KafkaError.UNKNOWN_TOPIC_OR_PART, "no such topic")
    code = altered(c, kind, topic, ("max.message.bytes", "DELETE", None))
    expect((code, described(c, kind, topic)[0]), (KafkaError.NO_ERROR, {"retention.ms": "3600000"}), "one has its default again")
    c.send(topic, [Record(b"k", b"x" * 2000)], partition=0, acks="all")
    legacy = c.admin.alter_configs([ConfigResource(kind, topic, set_config={"segment.ms": "7200000"})])
    expect(refusal(list(legacy.values())[0]), KafkaError.NO_ERROR, "the request that replaces the whole set")
    expect(described(c, kind, topic)[0], {"segment.ms": "7200000"}, "the whole set")


@suite.case("configs altered: of the broker, and of a group")
def other_configs_altered(c):
    broker = str(next(iter(c.admin.list_topics(timeout=ADMIN_TIMEOUT_S).brokers)))
    kind, topic = ConfigResource.Type.BROKER, c.create("defaults", 1)
    try:
        expect(altered(c, kind, broker, ("log.roll.ms", "SET", "86400000")), KafkaError.NO_ERROR, "a default for topics")
        for _ in until(READ_DEADLINE_S, "the new default"):
            if described(c, ConfigResource.Type.TOPIC, topic)[1]["segment.ms"] == "86400000":
                break
    finally:
        expect(altered(c, kind, broker, ("log.roll.ms", "DELETE", None)), KafkaError.NO_ERROR, "the old default")
    expect(altered(c, kind, broker, ("node.id", "SET", "77")), KafkaError.INVALID_REQUEST, "what cannot change while it runs")
    kind, group = ConfigResource.Type.GROUP, fresh("group")
    key = "consumer.session.timeout.ms"
    expect(altered(c, kind, group, (key, "SET", "50000")), KafkaError.NO_ERROR, "a group that is not there yet")
    expect(described(c, kind, group)[0], {key: "50000"}, "its config")
    expect(altered(c, kind, group, (key, "SET", "1")), KafkaError.INVALID_CONFIG, "out of the broker's bounds")
    expect(altered(c, kind, group, (key, "DELETE", None)), KafkaError.NO_ERROR, "its default again")


@suite.case("authorized operations are told")
def authorized_operations(c):
    topic = c.create("operations", 1)
    found = c.admin.describe_topics(TopicCollection([topic]), include_authorized_operations=True)[topic].result(ADMIN_TIMEOUT_S)
    names = {operation.name for operation in found.authorized_operations}
    expect(names, {"READ", "WRITE", "CREATE", "DELETE", "ALTER", "DESCRIBE", "DESCRIBE_CONFIGS", "ALTER_CONFIGS"}, "of a topic")
    cluster = c.admin.describe_cluster(include_authorized_operations=True).result(ADMIN_TIMEOUT_S)
    names = {operation.name for operation in cluster.authorized_operations}
    expect(names, {"CREATE", "ALTER", "DESCRIBE", "CLUSTER_ACTION", "DESCRIBE_CONFIGS", "ALTER_CONFIGS", "IDEMPOTENT_WRITE"}, "of the cluster")


def murmur2(data):
    """Kafka's partitioner hash, as an unsigned 32-bit number."""
    mask, m, length = 0xFFFFFFFF, 0x5BD1E995, len(data)
    h = (0x9747B28C ^ length) & mask
    for at in range(0, length - length % 4, 4):
        k = int.from_bytes(data[at:at + 4], "little") * m & mask
        k = (k ^ k >> 24) * m & mask
        h = (h * m & mask) ^ k
    tail = data[length - length % 4:]
    if tail:
        h = (h ^ int.from_bytes(tail, "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return h ^ h >> 15


if __name__ == "__main__":
    suite.main(Context)
