"""One group of one application, and what is done to its members. Every step ends when the group is known to work again."""

import itertools
import json
import os
import signal
import subprocess
import time
from pathlib import Path

from check import Checker
from journal import Journal
from world import SESSION_MS, Closed, commit_as, grow

PARTITIONS, PARTITIONS_GROWN = 4, 6
MEMBERS = 3
SETTLE_SECONDS_MAX = 60
LEAVE_SECONDS_MAX = 40
FREEZE_TRIES_MAX = 200
LOOK_SECONDS = 0.05
DESCRIBE_SECONDS_MAX = 30
FENCED = 4
UNKNOWN_MEMBER_ID, INVALID_PARTITIONS = 25, 37
LOADING = (14, 15, 16)  # COORDINATOR_LOAD_IN_PROGRESS, COORDINATOR_NOT_AVAILABLE, NOT_COORDINATOR


class Failed(Exception):
    """What the group did not do in time, or a member did unasked."""


class Group:
    def __init__(self, name, application, command, env, folder):
        self.name, self.topic, self.application, self.command, self.env = name, f"{name}-topic", application, command, env
        self.journal, self.errors = Journal(folder / f"{name}.journal"), folder / f"{name}.stderr"
        self.partitions, self.rounds, self.acknowledged = PARTITIONS, itertools.count(), {}
        self.producing, self.produced, self.running = True, False, True
        self.members, self.names, self.instances = {}, itertools.count(1), {}
        self.seen, self.below, self.owners = 0, {}, {}
        self.world = None

    def __hash__(self):
        return hash(self.name)

    def acknowledge(self, partition, base, values):
        self.acknowledged.setdefault(partition, {}).update((base + at, value) for at, value in enumerate(values))

    # What is known of the group now.

    def look(self):
        """Reads on in the journal, and sees that no member has ended unasked."""
        lines = self.journal.poll()
        for line in lines[self.seen:]:
            if line["e"] == "handled":
                self.below[line["p"]] = max(self.below.get(line["p"], 0), line["o"] + 1)
        self.seen = len(lines)
        for name, process in self.members.items():
            if process.poll() is not None:
                raise Failed(f"{name} ended by itself with status {process.returncode}")
        if self.world.failures:
            raise Failed(self.world.failures[0])
        return lines

    def wait(self, what, done, seconds=SETTLE_SECONDS_MAX):
        end = time.monotonic() + seconds
        while not done(self.look()):
            if time.monotonic() > end:
                raise Failed(f"waited {seconds} s for {what}")
            time.sleep(LOOK_SECONDS)

    def since(self, start, member, *events):
        """Lines of a member about `events` from line `start` on."""
        return [line for line in self.journal.lines[start:] if line.get("m") == member and line["e"] in events]

    def settle(self):
        """Waits until in each partition a record is handled that neither was acknowledged before nor handled: a member may be
        faster than the acknowledgement."""
        self.journal.write("settling")
        self.look()
        wanted = {p: max(max(self.acknowledged.get(p, {-1: ""})) + 1, self.below.get(p, 0)) for p in range(self.partitions)}
        self.wait("records of all partitions to be handled", lambda _: all(self.below.get(p, 0) > offset for p, offset in wanted.items()))
        self.journal.write("settled")

    # What is done to it.

    def begin(self):
        for _ in range(MEMBERS - 1):
            self.start()
        self.settle()

    def start(self, instead_of=None):
        """A new member; of a static group, with the instance of the one whose place it takes, or with one of its own."""
        if not self.running:
            raise Failed("it was abandoned")
        name = f"{self.name}-{next(self.names)}"
        self.instances[name] = self.instances.get(instead_of, f"instance-of-{name}") if self.application.static else ""
        self.journal.write("start", m=name, i=self.instances[name])
        arguments = [self.world.address, self.topic, self.name, self.application.protocol, name, str(SESSION_MS), self.instances[name]]
        # In a session of its own: when the shell that this was started from ends, the kernel would wake a group of processes
        # of which one is stopped, and hang it up.
        with open(self.errors, "ab") as errors:
            self.members[name] = subprocess.Popen([*self.command, *arguments], stdin=subprocess.DEVNULL, stdout=self.journal.file, stderr=errors,
                                                  env={**os.environ, **self.env}, start_new_session=True)
        return name

    def join(self, instead_of=None):
        start = len(self.look())
        name = self.start(instead_of)
        self.wait(f"{name} to be assigned partitions", lambda _: any(line["p"] for line in self.since(start, name, "assigned")))
        self.settle()
        return name

    def leave(self, name):
        """SIGTERM: the member commits, leaves and ends well."""
        self.journal.write("stop", m=name)
        self.members[name].terminate()
        self.ended(name, 0)

    def first_to_end(self, names):
        end = time.monotonic() + LEAVE_SECONDS_MAX
        while time.monotonic() < end:
            for name in names:
                if self.members[name].poll() is not None:
                    return name
            time.sleep(LOOK_SECONDS)
        raise Failed(f"none of {names} ended, which have one instance")

    def ended(self, name, wanted):
        """Waits for a member's end, and sees that it has the right status."""
        process = self.members.pop(name)
        try:
            status = process.wait(LEAVE_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise Failed(f"{name} did not end in {LEAVE_SECONDS_MAX} s") from None
        self.journal.write("exited", m=name, status=status)
        if status != wanted:
            raise Failed(f"{name} ended with status {status}, not {wanted}")

    def stop(self, rng):
        name = rng.choice(list(self.members))
        self.leave(name)
        if not self.application.static:
            self.settle()
        self.join(instead_of=name)

    def kill(self, rng):
        name = rng.choice(list(self.members))
        self.journal.write("kill", m=name)
        process = self.members.pop(name)
        process.kill()
        process.wait()
        if not self.application.static:
            self.settle()
        self.join(instead_of=name)

    def pause(self, rng):
        """Stops a member between handling and committing until others have its partitions: for longer than its session, or until
        another came with its instance. The one without an instance comes back. Of two with the same one must end: the zombie,
        or the other, where the zombie's client believes that its session is over and takes the instance back."""
        name = rng.choice(list(self.members))
        self.freeze(name)
        if self.application.static:
            both = (name, self.join(instead_of=name))
        else:
            self.settle()
        self.fenced(name)
        start = len(self.look())
        self.journal.write("continue", m=name, zombie=True)
        self.members[name].send_signal(signal.SIGCONT)
        if self.application.static:
            self.ended(self.first_to_end(both), FENCED)
        else:
            self.wait(f"{name} to be assigned partitions again", lambda _: self.since(start, name, "assigned"))
        self.settle()

    def fenced(self, name):
        """A commit in the name of a member that others have taken the place of is refused, where its client tells the name."""
        line = next(line for line in reversed(self.journal.lines) if line.get("m") == name and line["e"] == "assigned")
        if "id" not in line:
            return
        codes = []
        self.wait("an answer to a zombie's commit", lambda _: codes.extend(self.told(lambda: commit_as(self.world.address, self, line["id"], line["g"], 0))) or codes)
        if codes != [UNKNOWN_MEMBER_ID]:
            raise Failed(f"a commit in the name of {name}, which was removed, was answered {codes}")

    def told(self, ask):
        """The broker's answer in a list, which is empty while it is being killed or is loading."""
        try:
            answer = ask()
        except (Closed, OSError):
            return []
        return [] if answer in LOADING else [answer]

    def freeze(self, name):
        """Between handling and committing, so that it comes back with a commit to send; anywhere if it could not be caught there."""
        process = self.members[name]
        for tries_left in reversed(range(FREEZE_TRIES_MAX)):
            self.journal.write("pause", m=name)
            process.send_signal(signal.SIGSTOP)
            while Path(f"/proc/{process.pid}/stat").read_text(encoding="ascii", errors="replace").rsplit(")", 1)[1].split()[0] != "T":
                self.look()
            self.look()
            last = self.since(0, name, "handled", "committed", "refused", "assigned", "revoked", "lost")[-1:]
            if tries_left == 0 or (last and last[0]["e"] == "handled"):
                return
            self.journal.write("continue", m=name, zombie=False)
            process.send_signal(signal.SIGCONT)
            time.sleep(LOOK_SECONDS)

    def grow(self, _):
        self.journal.write("grow")
        # Where a former try did it although its answer was lost, this one is answered INVALID_PARTITIONS.
        self.wait("new partitions to be created",
                  lambda _: self.told(lambda: grow(self.world.address, self.topic, PARTITIONS_GROWN)) in ([0], [INVALID_PARTITIONS]))
        self.partitions = PARTITIONS_GROWN
        self.settle()

    def end(self):
        """No more records; the last are handled and committed; all members leave."""
        self.producing = False
        self.wait("the last records to be acknowledged", lambda _: self.produced)
        ends = {str(p): max(records) + 1 for p, records in self.acknowledged.items()}

        def drained(lines):
            told = next((line["o"] for line in reversed(lines) if line["e"] == "told"), {})
            return all(told.get(p, -1) >= end for p, end in ends.items())

        self.wait("everything to be committed", drained)
        for name in list(self.members):
            self.leave(name)
        self.running = False

    def described(self, program):
        """What is wrong with what `corelog group describe` says of the group after its end: static members did not leave it, but
        their sessions end."""
        end = time.monotonic() + (3 * SESSION_MS / 1000 if self.application.static else 0)
        while (wrong := self.described_now(program)) and time.monotonic() < end:
            time.sleep(LOOK_SECONDS)
        return wrong

    def described_now(self, program):
        with self.world.calm:
            done = subprocess.run([str(program), "group", "describe", self.name, "--bootstrap", self.world.address, "--json"], capture_output=True, text=True,
                                  timeout=DESCRIBE_SECONDS_MAX, check=False)
        if done.returncode:
            return [f"corelog group describe ended with {done.returncode}: {done.stderr[-300:]}"]
        told = json.loads(done.stdout)
        lags = {one["partition"]: one["lag"] for one in told["partitions"]}
        if (told["state"], told["members"], lags) != ("Empty", [], dict.fromkeys(range(self.partitions), 0)):
            return [f"corelog group describe tells state {told['state']}, {len(told['members'])} members, lags {lags}"]
        return []

    def verdict(self):
        return Checker(self.acknowledged, self.application.orderly, self.application.tells).run(self.journal.poll())

    def abandon(self):
        """Ends what still runs."""
        self.running = self.producing = False
        while self.members:
            _, process = self.members.popitem()
            process.kill()
            process.wait()
