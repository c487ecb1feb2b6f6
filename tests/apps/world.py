"""What all groups share: the broker that is killed under them, the producer that numbers records, and the one who asks what is committed."""

import itertools
import random
import socket
import sys
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "faults"), str(HERE.parent.parent / "scripts")]
from broker import Broker  # noqa: E402
from wire import Closed, Connection, array, batch, i32, i64, i8, string  # noqa: E402

SESSION_MS = 6000
ROUND_SECONDS = 0.1
RECORDS_PER_BATCH = 4
ASK_SECONDS = 0.25
PORT_TRIES_MAX = 50
OFFSET_COMMIT, OFFSET_FETCH, CREATE_PARTITIONS = 8, 9, 37
BROKER_SETTINGS = {"groups.group.initial.rebalance.delay.ms": 300, "groups.group.min.session.timeout.ms": 1000,
                   "groups.group.consumer.session.timeout.ms": SESSION_MS, "groups.group.consumer.heartbeat.interval.ms": SESSION_MS // 6,
                   "cores.count": 2, "memory.budget": "512MiB"}


def free_port(rng):
    """A port below those that the kernel gives to connections: clients that try again and again while the broker is down
    would otherwise be given its port for their own end."""
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])
    for _ in range(PORT_TRIES_MAX):
        port = rng.randrange(first // 2, first)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError("no free port found")


class World:
    """`groups` have `journal`, `topic`, `name`, `partitions` and `acknowledged`. Threads end when `close` is called; what a
    thread failed of is in `failures`."""

    def __init__(self, program, folder, seed):
        settings = [word for key, value in BROKER_SETTINGS.items() for word in ("--set", f"{key}={value}")]
        listen = f"127.0.0.1:{free_port(random.Random(seed))}"
        self.broker = Broker(program, folder / "data", listen=listen, more=settings)
        self.address, self.groups, self.failures = listen, [], []
        self.ending, self.calm = threading.Event(), threading.Lock()
        self.threads = [threading.Thread(target=self.guard, args=(work,), daemon=True) for work in (self.produce, self.ask)]

    def start(self):
        self.broker.start()
        with Connection(self.address) as c:
            for group in self.groups:
                error = c.create_topic(group.topic, group.partitions)
                if error:
                    raise OSError(f"creating {group.topic}: error {error}")
        for thread in self.threads:
            thread.start()

    def close(self):
        self.ending.set()
        for thread in self.threads:
            thread.join()

    def guard(self, work):
        try:
            work()
        except Exception as error:  # of any kind: without this thread nothing can be checked
            self.failures.append(f"{work.__name__}: {type(error).__name__}: {error}")

    def kill_broker(self):
        """kill -9 and a start on the same folder and port."""
        with self.calm:
            for group in self.groups:
                group.journal.write("broker killed")
            self.broker.kill()
            self.broker.start()
            for group in self.groups:
                group.journal.write("broker up")

    def connected(self, turn, pause):
        """Calls `turn` with a connection again and again; a connection that breaks, because the broker is killed, is made anew."""
        connection = None
        while not self.ending.wait(pause):
            try:
                connection = connection or Connection(self.address)
                turn(connection)
            except (Closed, OSError):
                if connection is not None:
                    connection.socket.close()
                connection = None

    def produce(self):
        """Sends to each topic, one partition after the other. What was not acknowledged is sent again: it may be there twice, at
        two offsets, and only the acknowledged one must be handled."""
        number, due = itertools.count(), {}

        def turn(c):
            for group in self.groups:
                if group.producing and group not in due:
                    due[group] = (next(group.rounds) % group.partitions, [str(next(number)) for _ in range(RECORDS_PER_BATCH)])
                if group in due:
                    partition, values = due[group]
                    error, base = c.produce(group.topic, batch([value.encode() for value in values]), partition=partition)
                    if not error:
                        group.acknowledge(partition, base, values)
                        del due[group]
            for group in self.groups:
                group.produced = not group.producing and group not in due

        self.connected(turn, ROUND_SECONDS)

    def ask(self):
        """Writes into each journal what the broker says is committed."""
        def turn(c):
            for group in self.groups:
                if group.running:
                    group.journal.write("asking")
                    offsets = committed(c, group)
                    if offsets is not None:
                        group.journal.write("told", o=offsets)

        self.connected(turn, ASK_SECONDS)


def committed(c, group):
    """{partition: offset}, or None while the coordinator is loading. OffsetFetch 5."""
    got = c.ask(OFFSET_FETCH, 5, string(group.name) + array([string(group.topic) + array([i32(p) for p in range(group.partitions)])]))
    if int.from_bytes(got[-2:], "big"):
        return None
    at, offsets = 4 + 4 + 2 + len(group.topic.encode()) + 4, {}
    for _ in range(int.from_bytes(got[at - 4:at], "big")):
        partition, offset = int.from_bytes(got[at:at + 4], "big"), int.from_bytes(got[at + 4:at + 12], "big", signed=True)
        metadata = max(int.from_bytes(got[at + 16:at + 18], "big", signed=True), 0)
        error = int.from_bytes(got[at + 18 + metadata:at + 20 + metadata], "big")
        if error:
            return None
        offsets[str(partition)] = offset
        at += 20 + metadata
    return offsets


def commit_as(address, group, member, generation, partition):
    """The error that a commit of offset 0 gets in the name of a member. OffsetCommit 7."""
    with Connection(address) as c:
        one = i32(partition) + i64(0) + i32(-1) + string(None)
        got = c.ask(OFFSET_COMMIT, 7, string(group.name) + i32(generation) + string(member) + string(None) + array([string(group.topic) + array([one])]))
    return int.from_bytes(got[-2:], "big")


def grow(address, topic, count):
    """CreatePartitions 0."""
    with Connection(address) as c:
        got = c.ask(CREATE_PARTITIONS, 0, array([string(topic) + i32(count) + i32(-1)]) + i32(10_000) + i8(0))
    at = 4 + 4 + 2 + len(topic.encode())
    return int.from_bytes(got[at:at + 2], "big")
