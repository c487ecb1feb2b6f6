"""What must be true of a journal, whatever the schedule was and whichever client wrote it.

Pure: lines in, sentences about what is wrong out. `scripts/tests/test_apps_check.py` has a journal for each sentence.
"""

from dataclasses import dataclass, field

FAULTS_SHOWN_MAX = 12
# The broker may take what a member sent just before its pause a moment after it; others get its partitions much later.
FROZEN_AFTER_TELLS = 2


@dataclass
class Verdict:
    faults: list = field(default_factory=list)
    handled: int = 0
    again: int = 0
    commits: int = 0
    refused: int = 0
    zombies_refused: int = 0

    def fault(self, at, text):
        if len(self.faults) < FAULTS_SHOWN_MAX:
            self.faults.append(f"line {at + 1}: {text}")


@dataclass
class Member:
    owns: set = field(default_factory=set)
    # From a pause until the member says anything about its partitions, it does not know what it owns.
    unaware: bool = False
    zombie: bool = False
    # What was committed soon after the pause: a commit that was under way then is answered when the member goes on.
    tells: int = 0
    frozen: dict = field(default_factory=dict)
    # Whom it silently gave partitions up to, where its client need not tell.
    taken: dict = field(default_factory=dict)


class Checker:
    """Walks a journal once. `acknowledged` is {partition: {offset: value}}, `orderly` whether this client can commit before
    it gives up a partition, so that an orderly rebalance repeats nothing, and `tells` whether it says so each time that it
    gives one up: where it does not, it has given it up if it handles nothing more of it."""

    def __init__(self, acknowledged, orderly=True, tells=True):
        self.acknowledged, self.orderly, self.tells = acknowledged, orderly, tells
        self.verdict = Verdict()
        self.members = {}
        self.values, self.last_handled, self.handled_below = {}, {}, {}
        self.generations, self.instances = {}, {}
        self.disturbed, self.disturbed_at, self.settling_at = False, -1, -1
        self.committed, self.told, self.due = {}, {}, {}

    def run(self, lines):
        for at, line in enumerate(lines):
            getattr(self, "on_" + line["e"].replace(" ", "_"), self.nothing)(at, line)
        for partition, records in sorted(self.acknowledged.items()):
            missing = sorted(offset for offset in records if (partition, offset) not in self.values)
            if missing:
                self.verdict.fault(len(lines), f"partition {partition}: {len(missing)} acknowledged records were never handled, the first at {missing[0]}")
        return self.verdict

    def nothing(self, at, line):
        pass

    def member(self, line):
        return self.members.setdefault(line["m"], Member())

    # Records.

    def on_handled(self, at, line):
        where, value = (line["p"], line["o"]), line["v"]
        self.verdict.handled += 1
        taker = self.member(line).taken.get(line["p"])
        if taker and not self.member(line).unaware:
            self.verdict.fault(at, f"{line['m']} handled {where}, and {taker} has that partition")
        wanted = self.acknowledged.get(where[0], {}).get(where[1], value)
        if self.values.setdefault(where, value) != value or wanted != value:
            self.verdict.fault(at, f"{line['m']} read {value} at {where}, where {wanted if wanted != value else self.values[where]} is")
        # A kill, a pause or a broker that dies excuses repetition until the group has settled. Members that come and go in an
        # orderly way excuse nothing: each commits what it handled before it gives a partition up.
        if where in self.last_handled:
            self.verdict.again += 1
            if self.disturbed_at <= self.last_handled[where] and not self.disturbed:
                self.verdict.fault(at, f"{line['m']} handled {where} again, which line {self.last_handled[where] + 1} says, and nothing had happened")
        self.last_handled[where] = at
        below = self.handled_below.get(where[0], 0)
        while (where[0], below) in self.values:
            below += 1
        self.handled_below[where[0]] = below

    # Commits.

    def not_skipped(self, at, who, offsets):
        for partition, offset in offsets.items():
            below = self.handled_below.get(int(partition), 0)
            if offset > below:
                self.verdict.fault(at, f"{who} committed {offset} in partition {partition}, and {below} had not been handled")

    def on_committed(self, at, line):
        self.verdict.commits += 1
        member = self.member(line)
        if member.zombie and any(member.frozen.get(partition) != offset for partition, offset in line["o"].items()):
            self.verdict.fault(at, f"{line['m']} was paused until others had its partitions, and its commit {line['o']} was accepted")
        self.not_skipped(at, line["m"], line["o"])
        for partition, offset in line["o"].items():
            self.committed[partition] = max(offset, self.committed.get(partition, -1))

    def on_refused(self, at, line):
        self.verdict.refused += 1
        self.verdict.zombies_refused += self.member(line).zombie

    def on_asking(self, at, line):
        self.due = dict(self.committed)

    def on_told(self, at, line):
        self.not_skipped(at, "the group", {p: o for p, o in line["o"].items() if o >= 0})
        for partition, offset in line["o"].items():
            before, due = self.told.get(partition, -1), self.due.get(partition, -1)
            if offset < before:
                self.verdict.fault(at, f"the committed offset of partition {partition} went back from {before} to {offset}")
            if offset < due:
                self.verdict.fault(at, f"{due} was acknowledged as committed in partition {partition}, and the broker tells {offset}")
            self.told[partition] = offset
        for member in self.members.values():
            if member.unaware and member.tells < FROZEN_AFTER_TELLS:
                member.tells, member.frozen = member.tells + 1, line["o"]

    # Who owns what.

    def on_assigned(self, at, line):
        member = self.member(line)
        member.owns = set(line["p"]) | (set() if line.get("all") else member.owns)
        member.unaware = member.zombie = False
        member.taken = {}
        for name, other in self.members.items():
            both = member.owns & other.owns
            if name == line["m"] or not both or other.unaware:
                continue
            if self.instances.get(name) and self.instances.get(name) == self.instances.get(line["m"]):
                other.unaware = True  # it is fenced, and will hear of it
                continue
            if self.tells:
                self.verdict.fault(at, f"{line['m']} got {sorted(both)}, which {name} still has")
            else:
                other.owns -= both
                other.taken.update(dict.fromkeys(both, line["m"]))
        if line.get("g") is not None:
            # Who comes with another's instance takes its place in the same generation.
            who = self.instances.get(line["m"]) or line["m"]
            for partition in member.owns:
                owner = self.generations.setdefault((line["g"], partition), who)
                if owner != who:
                    self.verdict.fault(at, f"in generation {line['g']} both {owner} and {who} have partition {partition}")

    def on_revoked(self, at, line):
        member = self.member(line)
        member.owns -= set(line["p"])
        # It knows now. Its client may let it handle and commit in the next generation before it tells of that.
        member.unaware = member.zombie = False

    on_lost = on_revoked

    def gone(self, at, line):
        self.members.pop(line["m"], None)

    on_closed = on_exited = gone

    # What the driver did.

    def disturb(self, at, line):
        self.disturbed, self.disturbed_at = True, at

    def on_kill(self, at, line):
        self.disturb(at, line)
        self.gone(at, line)

    def on_pause(self, at, line):
        self.disturb(at, line)
        member = self.member(line)
        member.unaware, member.tells, member.frozen = True, 0, {}

    def on_continue(self, at, line):
        self.disturb(at, line)
        self.member(line).zombie = line["zombie"]

    on_broker_killed = disturb

    def orderly_change(self, at, line):
        if not self.orderly:
            self.disturb(at, line)

    on_stop = on_grow = orderly_change

    def on_start(self, at, line):
        self.instances[line["m"]] = line.get("i")
        self.orderly_change(at, line)

    def on_settling(self, at, line):
        self.settling_at = at

    def on_settled(self, at, line):
        if self.disturbed and self.disturbed_at < self.settling_at:
            self.disturbed, self.disturbed_at = False, at
