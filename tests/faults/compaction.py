#!/usr/bin/env python3
"""Compacted topics through kill -9: groups commit offsets, and a producer writes keys, while what they write is compacted.

    tests/faults/compaction.py --program PATH-TO-CORELOG [--rounds N]

After every start each committed offset, and the newest record of each key, is what was last acknowledged or newer. At the
end __consumer_offsets and the topic are a small part of what was written to them. The closing line is
`N passed, N failed, N skipped`.
"""

import argparse
import contextlib
import random
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

sys.dont_write_bytecode = True
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent.parent / "scripts")]
from broker import Broker  # noqa: E402
from wire import Closed, Connection, array, batch, i32, i64, record, string, whole_batches  # noqa: E402

OFFSET_COMMIT, OFFSET_FETCH, FIND_COORDINATOR = 8, 9, 10
OK, LOADING, INVALID_RECORD, NULL = 0, 14, 87, b"\xff\xff"
TOPIC, KEYED = "read", "keyed"
PARTITIONS, KEYS = 40, 50
GROUPS = 4
# What one life writes to each of the two, and what may be left of all of it: a segment that is active, and what was
# cleaned of the others.
ROUND_BYTES = 3 << 20
LEFT_BYTES_MAX = 4 << 20
WAIT_SECONDS_MAX = 60
SETTINGS = {"groups.offsets.topic.num.partitions": "1", "groups.offsets.topic.segment.bytes": "1MiB", "cores.count": "2",
            "topics.log.cleaner.backoff.ms": "100", "memory.budget": "512MiB"}


def expect(got, wanted, what):
    if got != wanted:
        raise AssertionError(f"{what}: got {got!r:.300}, wanted {wanted!r:.300}")


def number(data, at, size):
    return int.from_bytes(data[at:at + size], "big", signed=True)


class Committer:
    """A group without members, whose offsets in all partitions rise together."""

    def __init__(self, name):
        self.group, self.sent, self.acknowledged, self.bytes = f"group-{name}", -1, -1, 0

    def find(self, c):
        expect(number(c.ask(FIND_COORDINATOR, 0, string(self.group)), 0, 2), OK, "finding the coordinator")

    def commit(self, c):
        self.sent += 1
        metadata = string("x" * 300)
        partitions = [i32(at) + i64(self.sent) + i32(-1) + metadata for at in range(PARTITIONS)]
        got = c.ask(OFFSET_COMMIT, 7, string(self.group) + i32(-1) + string("") + NULL + array([string(TOPIC) + array(partitions)]))
        # Throttle, topics, the name, then a number and a code for each partition.
        at = 4 + 4 + 2 + len(TOPIC) + 4
        codes = {number(got, at + 6 * one + 4, 2) for one in range(PARTITIONS)}
        expect(codes, {OK}, f"committing {self.sent}")
        self.acknowledged = self.sent
        self.bytes += 350 * PARTITIONS

    def check(self, c):
        body = string(self.group) + array([string(TOPIC) + array([i32(at) for at in range(PARTITIONS)])])
        end = time.monotonic() + WAIT_SECONDS_MAX
        while number(got := c.ask(OFFSET_FETCH, 5, body), -2 + len(got), 2) == LOADING and time.monotonic() < end:
            time.sleep(0.02)
        expect(number(got, len(got) - 2, 2), OK, "fetching offsets")
        at, found = 4 + 4 + 2 + len(TOPIC) + 4, []
        for _ in range(PARTITIONS):
            found.append(number(got, at + 4, 8))
            at += 4 + 8 + 4
            at += 2 + max(number(got, at, 2), 0) + 2
        expect(len(set(found)), 1, f"{self.group}: one commit is whole")
        expect(self.acknowledged <= found[0] <= self.sent, True, f"{self.group}: {found[0]} of {self.acknowledged}..{self.sent}")
        self.sent = self.acknowledged = found[0]


class Keyed:
    """A producer of keys whose values rise."""

    def __init__(self):
        self.sent, self.acknowledged, self.bytes = [-1] * KEYS, [-1] * KEYS, 0

    def write(self, c):
        key = random.randrange(KEYS)
        self.sent[key] += 1
        value = str(self.sent[key]).encode() + b"." * 2000
        error, _ = c.produce(KEYED, batch([value], payload=record(value, 0, f"key-{key}".encode())))
        expect(error, OK, "producing")
        self.acknowledged[key] = self.sent[key]
        self.bytes += len(value)

    def check(self, c):
        found, offset = [-1] * KEYS, 0
        while True:
            error, high_watermark, data = c.fetch(KEYED, offset)
            expect(error, OK, f"fetching at {offset}")
            if offset >= high_watermark:
                break
            lengths = whole_batches(data)
            expect(bool(lengths), True, f"there is something at {offset}")
            at = 0
            for length in lengths:
                one = data[at:at + length]
                base, delta, count = number(one, 0, 8), number(one, 23, 4), number(one, 57, 4)
                expect(base <= offset, True, f"a batch at {base} where {offset} is due")
                if count:
                    # The key's length in one byte, the key, the value's length in two, the value's digits.
                    at_key = one.index(b"key-", 61)
                    at_value = at_key + (one[at_key - 1] >> 1) + 2
                    key = int(one[at_key + 4:at_value - 2])
                    value = int(one[at_value:one.index(b".", at_value)])
                    expect(value > found[key], True, f"key {key}: {value} behind {found[key]}")
                    found[key] = value
                offset, at = base + delta + 1, at + length
        for key, value in enumerate(found):
            expect(self.acknowledged[key] <= value <= self.sent[key], True, f"key {key}: {value} of {self.acknowledged[key]}..{self.sent[key]}")
        self.sent, self.acknowledged = list(found), list(found)


def files_of(data, topic):
    """The name and size of each file of the topic's one partition. A compaction may take one away while it is looked at."""
    folders = list((data / "logs").glob(f"{topic}-0-*"))
    expect(len(folders), 1, f"folders of {topic}")
    found = []
    for file in sorted(folders[0].iterdir()):
        with contextlib.suppress(FileNotFoundError):
            found.append((file.name, file.stat().st_size))
    return found


def log_bytes(files):
    return sum(size for name, size in files if name.endswith((".log", ".index")))


def metric(broker, name):
    with urllib.request.urlopen(f"http://{broker.metrics}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name + "{"))


def wait_until(what, check):
    end = time.monotonic() + WAIT_SECONDS_MAX
    while not (found := check())[0]:
        expect(time.monotonic() < end, True, f"{what}: {found[1]}")
        time.sleep(0.1)


def prepare(address):
    with Connection(address) as c:
        expect(c.create_topic(TOPIC, PARTITIONS), OK, "creating a topic")
        configs = [("cleanup.policy", "compact"), ("segment.bytes", str(1 << 20)), ("min.cleanable.dirty.ratio", "0.3")]
        expect(c.create_topic(KEYED, 1, configs), OK, "creating a compacted topic")
        error, _ = c.produce(KEYED, batch([b"no key"]))
        expect(error, INVALID_RECORD, "a record without a key")


def run_round(broker, writers):
    """All of them write until each has written enough; then the broker is killed under them."""
    failures, enough = [], threading.Semaphore(0)

    def run(writer):
        goal = None
        try:
            goal = writer.bytes + ROUND_BYTES // (GROUPS if isinstance(writer, Committer) else 1)
            step = writer.commit if isinstance(writer, Committer) else writer.write
            with Connection(broker.address) as c:
                if isinstance(writer, Committer):
                    writer.find(c)
                writer.check(c)
                while True:
                    step(c)
                    if writer.bytes >= goal:
                        enough.release()
                        goal = float("inf")
        except (Closed, OSError) as error:
            if goal != float("inf"):
                failures.append(f"before the kill: {error!r}")
                enough.release()
        except Exception as error:  # of any kind: it is this writer's failure
            failures.append(f"{error}")
            enough.release()

    threads = [threading.Thread(target=run, args=(writer,)) for writer in writers]
    for thread in threads:
        thread.start()
    for _ in threads:
        enough.acquire()
    broker.kill()
    for thread in threads:
        thread.join()
    expect(failures, [], "what the writers saw")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    writers, passed, failed = [Committer(at) for at in range(GROUPS)] + [Keyed()], 0, 0
    with tempfile.TemporaryDirectory(prefix="corelog-compaction-") as folder:
        data = Path(folder) / "data"
        broker = Broker(args.program, data, more=[word for pair in SETTINGS.items() for word in ("--set", "=".join(pair))], metrics=True)
        try:
            for life in range(args.rounds):
                broker.start()
                if life == 0:
                    prepare(broker.address)
                run_round(broker, writers)
                passed += 1
                print(f"ok   life {life + 1}: {sum(writer.bytes for writer in writers) >> 20} MiB in all", flush=True)
            broker.start()
            for topic in ("__consumer_offsets", KEYED):
                def is_small(topic=topic):
                    files = files_of(data, topic)
                    return log_bytes(files) <= LEFT_BYTES_MAX, f"{log_bytes(files)} bytes in {files}"
                wait_until(f"{topic} gets small", is_small)
                print(f"ok   {topic}: {log_bytes(files_of(data, topic)) >> 10} KiB are left", flush=True)
                passed += 1
            wait_until("compactions are counted", lambda: (metric(broker, "corelog_compactions_total") > 0, "none"))
            expect(metric(broker, "corelog_compactions_failed_total"), 0.0, "compactions that failed")
            with Connection(broker.address) as c:
                for writer in writers:
                    writer.check(c)
            expect(broker.stop(), 0, "the status of a clean stop")
            broker.start()
            with Connection(broker.address) as c:
                for writer in writers:
                    writer.check(c)
            broker.stop()
            passed += 1
            print("ok   everything is there, also after a clean stop", flush=True)
        except AssertionError as error:
            failed = 1
            print(f"FAIL {error}")
            print(broker.log.read_text(errors="replace")[-3000:])
        finally:
            if broker.process is not None and broker.ended() is None:
                broker.kill()
    print(f"{passed} passed, {failed} failed, 0 skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
