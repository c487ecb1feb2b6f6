#!/usr/bin/env python3
"""kcat (Debian's package) against a broker, called as a person would: -L, -P, -C, -Q, with headers, codecs and offsets."""

import json
import subprocess
import time

from confluent_kafka.admin import AdminClient, NewTopic

from suite import READ_DEADLINE_S, Suite, expect, fresh, until

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")

suite = Suite("kcat")


class Context:
    """kcat has no topic command, so confluent-kafka makes the topics."""

    def __init__(self, bootstrap):
        self.bootstrap = bootstrap
        self.admin = AdminClient({"bootstrap.servers": bootstrap})

    def kcat(self, *args, stdin=b""):
        done = subprocess.run(["kcat", "-b", self.bootstrap, *args], input=stdin, capture_output=True, timeout=READ_DEADLINE_S, check=False)
        if done.returncode != 0:
            raise AssertionError(f"kcat {' '.join(args)} ended with {done.returncode}: {done.stderr.decode(errors='replace')[-500:]}")
        return done.stdout

    def create(self, prefix, partitions=1):
        topic = fresh(prefix)
        self.admin.create_topics([NewTopic(topic, partitions, 1)])[topic].result(READ_DEADLINE_S)
        return topic

    def read(self, topic, *args):
        """Every message as kcat's JSON, until the end of the partitions."""
        return [json.loads(line) for line in self.kcat("-C", "-t", topic, "-e", "-q", "-J", *args).splitlines()]


@suite.case("-L lists broker, topic and partitions")
def metadata(c):
    topic = c.create("kcat-meta", 3)
    listed = json.loads(c.kcat("-L", "-J", "-t", topic))
    found = next(t for t in listed["topics"] if t["topic"] == topic)
    expect([p["partition"] for p in found["partitions"]], [0, 1, 2], "partitions")
    ids = {b["id"] for b in listed["brokers"]}
    expect({p["leader"] for p in found["partitions"]} <= ids, True, "leaders among the brokers")
    expect(c.bootstrap in {b["name"] for b in listed["brokers"]}, True, f"{c.bootstrap} among {listed['brokers']}")


def produce_case(acks, codec):
    @suite.case(f"produce acks={acks} {codec}")
    def produce(c):
        topic = c.create("kcat")
        lines = [b"k%d:%s" % (i % 5, b"line %d " % i + b"x" * (i * 7 % 300)) for i in range(200)]
        c.kcat("-P", "-t", topic, "-p", "0", "-K:", "-z", codec, "-X", f"acks={acks}", stdin=b"\n".join(lines) + b"\n")
        for _ in until(READ_DEADLINE_S, "all lines"):  # with acks=0 the broker may still be at it
            got = c.read(topic, "-p", "0", "-o", "beginning")
            if len(got) >= len(lines):
                break
        expect([f"{m['key']}:{m['payload']}".encode() for m in got], lines, "lines")
        expect([m["offset"] for m in got], list(range(200)), "offsets")


for codec in CODECS:
    for acks in ("0", "1", "all"):
        produce_case(acks, codec)


@suite.case("idempotent, over several partitions")
def idempotent(c):
    topic = c.create("kcat-idem", 3)
    lines = [b"%d" % i for i in range(3000)]
    c.kcat("-P", "-t", topic, "-X", "enable.idempotence=true", "-X", "sticky.partitioning.linger.ms=0", stdin=b"\n".join(lines) + b"\n")
    got = c.read(topic, "-o", "beginning")
    expect(sorted(int(m["payload"]) for m in got), list(range(3000)), "every line once")


@suite.case("headers, null key, null value")
def headers(c):
    topic = c.create("kcat-headers")
    c.kcat("-P", "-t", topic, "-p", "0", "-K:", "-Z", "-H", "one=1", "-H", "two", stdin=b"key:\n:value\n")
    got = c.read(topic, "-p", "0", "-o", "beginning")
    expect([(m["key"], m["payload"]) for m in got], [("key", None), (None, "value")], "null value, then null key")
    expect(got[0]["headers"], ["one", "1", "two", None], "headers")


@suite.case("read from an offset, the last ones, a range of times; look times up")
def positions(c):
    topic = c.create("kcat-pos")
    c.kcat("-P", "-t", topic, "-p", "0", stdin=b"".join(b"%d\n" % i for i in range(50)))
    for _ in until(READ_DEADLINE_S, "the clock to move on"):
        middle = int(time.time() * 1000)
        if middle > c.read(topic, "-p", "0", "-o", "49")[0]["ts"] + 2:
            break
    c.kcat("-P", "-t", topic, "-p", "0", stdin=b"".join(b"%d\n" % i for i in range(50, 100)))

    def values(*args):
        return [int(m["payload"]) for m in c.read(topic, "-p", "0", *args)]

    expect(values("-o", "73"), list(range(73, 100)), "from offset 73")
    expect(values("-o", "-5"), list(range(95, 100)), "the last five")
    expect(values("-o", "end"), [], "from the end")
    expect(values("-o", f"s@{middle}"), list(range(50, 100)), "from a time")
    expect(values("-o", "s@0", "-o", f"e@{middle}"), list(range(50)), "up to a time")
    expect(c.kcat("-Q", "-t", f"{topic}:0:{middle}").split(), f"{topic} [0] offset 50".encode().split(), "-Q")


if __name__ == "__main__":
    suite.main(Context)
