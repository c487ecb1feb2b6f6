#!/usr/bin/env python3
"""kafka-python in consumer groups: commits and resumption, members that come and go, offsets by an admin."""

import threading
import time

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.structs import OffsetAndMetadata

from suite import READ_DEADLINE_S, Suite, expect, fresh, until

PARTITIONS = 4

suite = Suite("kafka-python-groups")


class Context:
    def __init__(self, bootstrap):
        self.bootstrap = bootstrap
        self.admin = KafkaAdminClient(bootstrap_servers=bootstrap)
        self.producer = KafkaProducer(bootstrap_servers=bootstrap)

    def topic(self):
        name = fresh("kp-group")
        self.admin.create_topics({name: {"num_partitions": PARTITIONS, "replication_factor": 1}}, wait_for_metadata=True)
        return name

    def send(self, topic, wanted):
        for at, value in enumerate(wanted):
            self.producer.send(topic, value=value, partition=at % PARTITIONS)
        self.producer.flush(READ_DEADLINE_S)

    def member(self, group, topic):
        return Member(KafkaConsumer(topic, bootstrap_servers=self.bootstrap, group_id=group, enable_auto_commit=False,
                                    auto_offset_reset="earliest", fetch_max_wait_ms=100))


def values(first, count):
    return [b"%d" % value for value in range(first, first + count)]


class Member:
    """A consumer polled by a thread of its own: while one waits for the others to join, its poll does not return."""

    def __init__(self, consumer):
        self.consumer, self.got, self.closing = consumer, [], False
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.closing:
            for batch in self.consumer.poll(timeout_ms=100).values():
                self.got += [message.value for message in batch]
        self.consumer.commit()
        self.consumer.close()

    def close(self):
        """Commits what was read, and leaves."""
        self.closing = True
        self.thread.join(READ_DEADLINE_S)
        expect(self.thread.is_alive(), False, "the thread of a closed member")

    def partitions(self):
        return sorted(p.partition for p in self.consumer.assignment())


def read(members, count):
    for _ in until(READ_DEADLINE_S, f"{count} messages"):
        time.sleep(0.01)
        if sum(len(member.got) for member in members) >= count:
            return sorted(sum((member.got for member in members), []))


def spread(members, wanted):
    for _ in until(READ_DEADLINE_S, f"{wanted} partitions each"):
        time.sleep(0.01)
        owned = [member.partitions() for member in members]
        if [len(one) for one in owned] == wanted and sorted(sum(owned, [])) == list(range(PARTITIONS)):
            return


@suite.case("what was committed is where the next one resumes")
def resume(c):
    topic, group = c.topic(), fresh("kp-resume")
    c.send(topic, values(0, 60))
    first = c.member(group, topic)
    expect(read([first], 60), sorted(values(0, 60)), "what the first one reads")
    first.close()
    found = c.admin.list_group_offsets({group: None})[group]
    expect(sorted((where.partition, at.offset) for where, at in found.items()), [(p, 15) for p in range(PARTITIONS)], "committed")
    c.send(topic, values(60, 8))
    second = c.member(group, topic)
    expect(read([second], 8), sorted(values(60, 8)), "what the second one reads")
    second.close()


@suite.case("two members share the partitions, the one that stays takes over")
def share(c):
    topic, group = c.topic(), fresh("kp-share")
    stays, goes = c.member(group, topic), c.member(group, topic)
    spread([stays, goes], [2, 2])
    c.send(topic, values(0, 40))
    expect(read([stays, goes], 40), sorted(values(0, 40)), "what both read, each once")
    goes.close()
    spread([stays], [4])
    stays.got.clear()
    c.send(topic, values(40, 40))
    expect(read([stays], 40), sorted(values(40, 40)), "what the one that stays reads")
    stays.close()


@suite.case("offsets are committed with what the member says of them")
def metadata(c):
    topic, group = c.topic(), fresh("kp-admin")
    alone = KafkaConsumer(bootstrap_servers=c.bootstrap, group_id=group, enable_auto_commit=False)
    alone.assign([TopicPartition(topic, 1)])
    alone.commit({TopicPartition(topic, 1): OffsetAndMetadata(5, "why", -1)})
    alone.close()
    found = c.admin.list_group_offsets({group: None})[group]
    expect({where: (at.offset, at.metadata) for where, at in found.items()}, {TopicPartition(topic, 1): (5, "why")}, "all offsets")


if __name__ == "__main__":
    suite.main(Context)
