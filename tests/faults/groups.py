#!/usr/bin/env python3
"""Consumer groups through kill -9: members commit as fast as they can while the broker is killed under them, and started again.

    tests/faults/groups.py --program PATH-TO-CORELOG [--rounds N]

After every start each member is still one, in its generation, and its group's offset is one that it sent: not below the
last one that was acknowledged, however the process ended. The closing line is `N passed, N failed, N skipped`.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path

sys.dont_write_bytecode = True
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent.parent / "scripts")]
from broker import Broker  # noqa: E402
from wire import Closed, Connection, array, i32, i64, string  # noqa: E402

MEMBERS = 12
COMMITS_PER_ROUND = 40
LOAD_SECONDS_MAX = 30
OFFSET_COMMIT, OFFSET_FETCH, FIND_COORDINATOR, JOIN, HEARTBEAT, SYNC = 8, 9, 10, 11, 12, 14
OK, LOADING, NOT_COORDINATOR, MEMBER_ID_REQUIRED = 0, 14, 16, 79
TOPIC, SPREAD, BY_HAND = "groups", "spread", "by-hand"
NULL = b"\xff\xff"


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def number(self, size):
        self.at += size
        return int.from_bytes(self.data[self.at - size:self.at], "big", signed=True)

    def string(self):
        size = self.number(2)
        self.at += max(size, 0)
        return self.data[self.at - size:self.at].decode() if size >= 0 else None


def expect(got, wanted, what):
    if got != wanted:
        raise AssertionError(f"{what}: got {got!r:.300}, wanted {wanted!r:.300}")


class Member:
    """The only member of its group."""

    def __init__(self, name):
        self.group, self.id, self.generation, self.sent, self.acknowledged = f"group-{name}", "", -1, -1, -1
        self.stopping = False

    def join(self, c):
        expect(Reader(c.ask(FIND_COORDINATOR, 0, string(self.group))).number(2), OK, "finding the coordinator")
        protocols = array([string("range") + i32(1) + b"x"])
        for wanted in (MEMBER_ID_REQUIRED, OK):
            body = string(self.group) + i32(60_000) + i32(60_000) + string(self.id) + NULL + string("consumer") + protocols
            r = Reader(self.when_loaded(lambda: c.ask(JOIN, 5, body), 4))
            r.number(4)
            expect(r.number(2), wanted, "joining")
            self.generation = r.number(4)
            r.string(), r.string()
            self.id = r.string()
        plan = array([string(self.id) + i32(3) + b"all"])
        r = Reader(c.ask(SYNC, 3, string(self.group) + i32(self.generation) + string(self.id) + NULL + plan))
        r.number(4)
        expect(r.number(2), OK, "bringing the plan")

    def when_loaded(self, ask, error_at):
        """The answer to a question, asked until the coordinator has loaded."""
        end = time.monotonic() + LOAD_SECONDS_MAX
        while True:
            answer = ask()
            if int.from_bytes(answer[error_at:error_at + 2], "big") != LOADING or time.monotonic() > end:
                return answer

    def heartbeat(self, c):
        return Reader(c.ask(HEARTBEAT, 3, string(self.group) + i32(self.generation) + string(self.id) + NULL)).number(6) & 0xFFFF

    def commit(self, c):
        self.sent += 1
        partition = i32(0) + i64(self.sent) + i32(-1) + NULL
        r = Reader(c.ask(OFFSET_COMMIT, 7, string(self.group) + i32(self.generation) + string(self.id) + NULL
                         + array([string(TOPIC) + array([partition])])))
        r.number(8), r.string(), r.number(8)
        code = r.number(2)
        if code == NOT_COORDINATOR and self.stopping:
            raise Closed
        expect(code, OK, f"committing {self.sent}")
        self.acknowledged = self.sent

    def committed(self, c):
        def ask():
            return c.ask(OFFSET_FETCH, 5, string(self.group) + array([string(TOPIC) + array([i32(0)])]))

        # The error is behind everything else.
        answer = ask()
        end = time.monotonic() + LOAD_SECONDS_MAX
        while int.from_bytes(answer[-2:], "big") == LOADING and time.monotonic() < end:
            answer = ask()
        expect(int.from_bytes(answer[-2:], "big"), OK, "fetching the offset")
        r = Reader(answer)
        r.number(8), r.string(), r.number(8)
        return r.number(8)

    def check(self, c):
        found = self.committed(c)
        expect(self.acknowledged <= found <= self.sent, True, f"{self.group}: {found} is committed, {self.acknowledged} was acknowledged")
        expect(self.heartbeat(c), OK, f"{self.group}: the heartbeat of generation {self.generation}")
        self.acknowledged = self.sent = found

    def work(self, address, enough):
        """Commits until the broker is gone."""
        try:
            with Connection(address) as c:
                if self.generation < 0:
                    self.join(c)
                self.check(c)
                while True:
                    self.commit(c)
                    if self.acknowledged % COMMITS_PER_ROUND == 0:
                        enough.release()
        except (Closed, OSError):
            pass


def command_line(program, address, members):
    def group(*words):
        done = subprocess.run([program, "group", *words, "--bootstrap", address, "--json"], capture_output=True, text=True, timeout=LOAD_SECONDS_MAX, check=False)
        return done.returncode, json.loads(done.stdout)

    expect(group("list"), (0, [{"name": name, "state": "Stable", "type": "classic"} for name in sorted(member.group for member in members)]), "group list")
    for member in members:
        status, described = group("describe", member.group)
        expect((status, [one["id"] for one in described["members"]]), (0, [member.id]), "its members")
        expect([(one["partition"], one["committed"]) for one in described["partitions"]], [(0, member.acknowledged)], "its offsets")
        status, refused = group("reset-offsets", member.group, "--topic", TOPIC, "--to-earliest")
        expect((status, "UNKNOWN_MEMBER_ID" in refused["error"]), (1, True), "a reset under a member")
        status, dry = group("reset-offsets", member.group, "--all-topics", "--to-latest", "--dry-run")
        expect((status, [(one["before"], one["after"]) for one in dry["offsets"]]), (0, [(member.acknowledged, 0)]), "what would be reset")

    name = members[0].group
    expect(group("describe", name)[1]["configs"], {}, "configs before any is set")
    expect(group("alter", name, "--config", "consumer.session.timeout.ms=50000")[0], 0, "setting a config")
    expect(group("describe", name)[1]["configs"], {"consumer.session.timeout.ms": "50000"}, "configs")

    # Some partitions of a topic, for a group that nobody was in.
    subprocess.run([program, "topic", "create", SPREAD, "--partitions", "3", "--bootstrap", address], capture_output=True, timeout=LOAD_SECONDS_MAX, check=True)
    status, refused = group("reset-offsets", BY_HAND, "--topic", f"{SPREAD}:1,3", "--to-latest")
    expect((status, "no partition 3" in refused["error"]), (1, True), "a reset of a partition that is not there")
    for dry in (["--dry-run"], []):
        status, reset = group("reset-offsets", BY_HAND, "--topic", f"{SPREAD}:2,0", "--to-latest", *dry)
        expect((status, [(one["partition"], one["before"]) for one in reset["offsets"]]), (0, [(0, None), (2, None)]), "a reset of two partitions")
    status, described = group("describe", BY_HAND)
    expect((status, [(one["partition"], one["committed"]) for one in described["partitions"]]), (0, [(0, 0), (2, 0)]), "the two partitions")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    members, failures = [Member(at) for at in range(MEMBERS)], []

    def run(member, address, enough):
        try:
            member.work(address, enough)
        except Exception:  # of any kind: it is this member's failure
            failures.append(traceback.format_exc())
            enough.release(MEMBERS)

    passed = 0
    with tempfile.TemporaryDirectory(prefix="corelog-groups-") as folder:
        broker = Broker(args.program, Path(folder) / "data", more=["--set", "groups.group.initial.rebalance.delay.ms=0", "--set", "cores.count=2",
                                                                   "--set", "memory.budget=512MiB"])
        for number in range(args.rounds + 1):
            broker.start()
            if number == 0:
                with Connection(broker.address) as c:
                    expect(c.create_topic(TOPIC), OK, "creating a topic")
            enough = threading.Semaphore(0)
            threads = [threading.Thread(target=run, args=(member, broker.address, enough)) for member in members]
            for thread in threads:
                thread.start()
            for _ in members:
                enough.acquire()
            if number < args.rounds:
                broker.kill()
            else:
                # The last life ends well: nothing may be lost then either.
                for member in members:
                    member.stopping = True
                expect(broker.stop(), 0, "the status of a clean stop")
            for thread in threads:
                thread.join()
            if failures:
                break
            passed += 1
            print(f"ok   life {number + 1}: {sum(member.acknowledged for member in members)} commits in all", flush=True)
        if not failures:
            broker.start()
            with Connection(broker.address) as c:
                for member in members:
                    member.check(c)
            print("ok   everything is there after a clean stop")
            command_line(args.program, broker.address, members)
            broker.stop()
            passed += 2
            print("ok   corelog group says the same, and resets nothing under a member")
    print("".join(failures), end="")
    print(f"{passed} passed, {1 if failures else 0} failed, 0 skipped")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
