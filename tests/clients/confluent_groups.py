#!/usr/bin/env python3
"""confluent-kafka (librdkafka) in consumer groups: eager, cooperative and KIP-848 members, static ones, commits, resets."""

from confluent_kafka import Consumer, ConsumerGroupState, ConsumerGroupTopicPartitions, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from suite import READ_DEADLINE_S, Suite, expect, fresh, until

ADMIN_TIMEOUT_S = 20
PARTITIONS = 4
PROTOCOLS = {
    "range": {"partition.assignment.strategy": "range"},
    "cooperative-sticky": {"partition.assignment.strategy": "cooperative-sticky"},
    "consumer": {"group.protocol": "consumer"},
}

suite = Suite("confluent-groups")


class Context:
    def __init__(self, bootstrap):
        self.bootstrap = bootstrap
        self.admin = AdminClient({"bootstrap.servers": bootstrap})
        self.producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 5})

    def topic(self):
        name = fresh("group")
        self.admin.create_topics([NewTopic(name, PARTITIONS, 1)])[name].result(ADMIN_TIMEOUT_S)
        return name

    def send(self, topic, values):
        for at, value in enumerate(values):
            self.producer.produce(topic, value=value, partition=at % PARTITIONS)
        expect(self.producer.flush(READ_DEADLINE_S), 0, "undelivered messages")

    def member(self, group, topic, protocol, **more):
        config = {"bootstrap.servers": self.bootstrap, "group.id": group, "auto.offset.reset": "earliest", "enable.auto.commit": False,
                  "fetch.wait.max.ms": 100, **PROTOCOLS[protocol], **{key.replace("_", "."): value for key, value in more.items()}}
        member = Consumer(config)
        member.subscribe([topic])
        return member


def values(first, count):
    return [b"%d" % value for value in range(first, first + count)]


def poll(members):
    """What each member gets now, as values."""
    got = []
    for member in members:
        message = member.poll(0.05)
        if message is None:
            continue
        if message.error():
            raise KafkaException(message.error())
        got.append(message.value())
    return got


def read(members, count):
    got = []
    for _ in until(READ_DEADLINE_S, f"{count} messages"):
        got += poll(members)
        if len(got) >= count:
            return got


def spread(members, wanted):
    """Polls until the members have so many partitions, none of them twice; gives what was read meanwhile."""
    got = []
    for _ in until(READ_DEADLINE_S, f"{wanted} partitions each"):
        got += poll(members)
        owned = [[p.partition for p in member.assignment()] for member in members]
        if [len(one) for one in owned] == wanted and sorted(sum(owned, [])) == list(range(PARTITIONS)):
            return got


def code(future):
    try:
        future.result(ADMIN_TIMEOUT_S)
    except KafkaException as error:
        return error.args[0].code()
    return KafkaError.NO_ERROR


def protocol_cases(protocol):
    @suite.case(f"{protocol}: what was committed is where the next one resumes")
    def resume(c):
        topic, group = c.topic(), fresh("resume")
        c.send(topic, values(0, 60))
        first = c.member(group, topic, protocol)
        expect(sorted(read([first], 60)), sorted(values(0, 60)), "what the first one reads")
        first.commit(asynchronous=False)
        wanted = [(p, 15) for p in range(PARTITIONS)]
        expect([(p.partition, p.offset) for p in first.committed([TopicPartition(topic, p) for p in range(PARTITIONS)])], wanted, "committed")
        first.close()
        c.send(topic, values(60, 8))
        second = c.member(group, topic, protocol)
        expect(sorted(read([second], 8)), sorted(values(60, 8)), "what the second one reads")
        expect(poll([second] * 10), [], "nothing is read twice")
        second.close()

    @suite.case(f"{protocol}: two members share the partitions, the one that stays takes over")
    def share(c):
        topic, group = c.topic(), fresh("share")
        stays, goes = c.member(group, topic, protocol), c.member(group, topic, protocol)
        spread([stays, goes], [2, 2])
        c.send(topic, values(0, 40))
        expect(sorted(read([stays, goes], 40)), sorted(values(0, 40)), "what both read, each once")
        stays.commit(asynchronous=False)
        goes.commit(asynchronous=False)
        goes.close()
        late = spread([stays], [4])
        c.send(topic, values(40, 40))
        expect(sorted(late + read([stays], 40 - len(late))), sorted(values(40, 40)), "what the one that stays reads")
        stays.close()

    @suite.case(f"{protocol}: a static member that restarts gets its partitions back, and the other notices nothing")
    def static(c):
        topic, group, changes = c.topic(), fresh("static"), []
        one, two = (c.member(group, topic, protocol, group_instance_id=name) for name in ("one", "two"))
        spread([one, two], [2, 2])
        owned = sorted(p.partition for p in one.assignment())
        two.subscribe([topic], on_assign=lambda _, p: changes.append(("assigned", p)), on_revoke=lambda _, p: changes.append(("revoked", p)))
        spread([one, two], [2, 2])
        changes.clear()
        one.close()
        again = c.member(group, topic, protocol, group_instance_id="one")
        spread([again, two], [2, 2])
        expect(sorted(p.partition for p in again.assignment()), owned, "the partitions of the one that came back")
        expect(changes, [], "what the other one noticed")
        again.close()
        two.close()


for name in PROTOCOLS:
    protocol_cases(name)


@suite.case("a regular expression subscribes to topics that are made later")
def pattern(c):
    group, prefix = fresh("pattern"), fresh("matched")
    member = c.member(group, f"^{prefix}.*", "range", topic_metadata_refresh_interval_ms=500)
    later = f"{prefix}-later"
    c.admin.create_topics([NewTopic(later, PARTITIONS, 1)])[later].result(ADMIN_TIMEOUT_S)
    c.send(later, values(0, 8))
    expect(sorted(read([member], 8)), sorted(values(0, 8)), "what was sent to it")
    member.close()


@suite.case("offsets are committed by who is no member, and reset only while there is none")
def admin_offsets(c):
    topic, group = c.topic(), fresh("simple")
    alone = Consumer({"bootstrap.servers": c.bootstrap, "group.id": group, "enable.auto.commit": False})
    alone.assign([TopicPartition(topic, 0)])
    alone.commit(offsets=[TopicPartition(topic, 0, 7, metadata="by hand")], asynchronous=False)
    found = alone.committed([TopicPartition(topic, 0), TopicPartition(topic, 1)])
    expect([(p.offset, p.metadata) for p in found], [(7, "by hand"), (-1001, None)], "committed")
    alone.close()

    def reset(offset):
        wanted = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, 0, offset)])
        future = c.admin.alter_consumer_group_offsets([wanted])[group]
        result = future.result(ADMIN_TIMEOUT_S)
        return [p.error and p.error.code() for p in result.topic_partitions]

    expect(reset(3), [None], "reset while it is empty")
    listed = c.admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])[group].result(ADMIN_TIMEOUT_S)
    expect([(p.topic, p.partition, p.offset) for p in listed.topic_partitions], [(topic, 0, 3)], "all offsets")
    member = c.member(group, topic, "range")
    spread([member], [4])
    try:
        refused = reset(1)
    except KafkaException as error:
        refused = [error.args[0].code()]
    expect(refused, [KafkaError.UNKNOWN_MEMBER_ID], "reset while it has a member")
    member.close()


@suite.case("groups are listed, described and deleted")
def admin_groups(c):
    topic, classic, modern = c.topic(), fresh("classic"), fresh("modern")
    members = {group: c.member(group, topic, protocol, client_id=f"of-{group}") for group, protocol in ((classic, "range"), (modern, "consumer"))}
    for member in members.values():
        spread([member], [4])
    listed = {one.group_id: one for one in c.admin.list_consumer_groups().result(ADMIN_TIMEOUT_S).valid}
    expect([listed[group].state for group in members], [ConsumerGroupState.STABLE] * 2, "states in the list")
    expect([listed[group].type.name for group in members], ["CLASSIC", "CONSUMER"], "types in the list")
    for group, future in c.admin.describe_consumer_groups(list(members), include_authorized_operations=True).items():
        described = future.result(ADMIN_TIMEOUT_S)
        expect(described.state, ConsumerGroupState.STABLE, "state")
        expect([one.client_id for one in described.members], [f"of-{group}"], "members")
        expect(described.members[0].host, "/127.0.0.1", "host")
        assigned = sorted(p.partition for p in described.members[0].assignment.topic_partitions)
        expect(assigned, list(range(PARTITIONS)), "assignment")
        expect(bool(described.authorized_operations), True, "authorized operations")
        members[group].commit(offsets=[TopicPartition(topic, 0, 0)], asynchronous=False)
        expect(code(c.admin.delete_consumer_groups([group])[group]), KafkaError.NON_EMPTY_GROUP, "deleted with a member")
        members[group].close()
        expect(code(c.admin.delete_consumer_groups([group])[group]), KafkaError.NO_ERROR, "deleted without")
        expect(code(c.admin.delete_consumer_groups([group])[group]), KafkaError.GROUP_ID_NOT_FOUND, "deleted twice")
    left = [one.group_id for one in c.admin.list_consumer_groups().result(ADMIN_TIMEOUT_S).valid]
    expect([group for group in members if group in left], [], "groups that are still listed")


@suite.case("no client writes to the topic that groups live in")
def internal(c):
    listed = c.admin.list_topics("__consumer_offsets", timeout=ADMIN_TIMEOUT_S).topics["__consumer_offsets"]
    expect(len(listed.partitions), 50, "its partitions")
    errors = []
    c.producer.produce("__consumer_offsets", value=b"x", partition=0, on_delivery=lambda error, _: errors.append(error.code()))
    c.producer.flush(READ_DEADLINE_S)
    expect(errors, [KafkaError.TOPIC_EXCEPTION], "the producer's error")


if __name__ == "__main__":
    suite.main(Context)
