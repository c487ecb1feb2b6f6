"""The checker of tests/apps: a sound journal passes, and each thing that must not happen is found."""

import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests/apps"))
from check import Checker  # noqa: E402

ACKNOWLEDGED = {0: {0: "a", 1: "b", 2: "c"}}


def assigned(member, *partitions, **more):
    return {"e": "assigned", "m": member, "p": list(partitions), **more}


def gone(event, member, *partitions):
    return {"e": event, "m": member, "p": list(partitions)}


def handled(member, offset, value=None, partition=0):
    return {"e": "handled", "m": member, "p": partition, "o": offset, "v": value or "abcdefgh"[offset]}


def commit(member, offset, event="committed"):
    return {"e": event, "m": member, "o": {"0": offset}}


def told(offset):
    return [{"e": "asking"}, {"e": "told", "o": {"0": offset}}]


def done(event, member=None, **more):
    return {"e": event, **({"m": member} if member else {}), **more}


SETTLED = [done("settling"), done("settled")]
ALL = [handled("x", 0), handled("x", 1), handled("x", 2)]

# What happened, and what must be said about it; nothing where the text is empty.
CASES = {
    "sound": ([assigned("x", 0), *ALL, commit("x", 3), *told(3), gone("revoked", "x", 0), assigned("y", 0)], ""),
    "never handled": ([handled("x", 0), handled("x", 1)], "1 acknowledged records were never handled, the first at 2"),
    "another value than was acknowledged": ([handled("x", 0, "z"), *ALL[1:]], "read z at (0, 0), where a is"),
    "a value that changed": ([*ALL, handled("x", 3, "d"), done("broker killed"), handled("x", 3, "e")], "read e at (0, 3), where d is"),
    "again without a reason": ([*ALL, handled("x", 2)], "handled (0, 2) again, which line 3 says"),
    "again after a kill": ([*ALL, done("kill", "x"), handled("y", 2)], ""),
    "again after a kill and settling": ([*ALL, done("kill", "x"), *SETTLED, handled("y", 2)], ""),
    "again after all had settled": ([done("kill", "x"), *SETTLED, *ALL, handled("y", 2)], "again"),
    "again, a broker that died while the group was settling": ([done("settling"), done("broker killed"), *ALL, done("settled"), handled("y", 2)], ""),
    "again after an orderly start": ([*ALL, done("start", "y"), handled("y", 2)], "again"),
    "skipped by a member": ([handled("x", 0), commit("x", 2), handled("x", 1), handled("x", 2)], "x committed 2 in partition 0, and 1 had not been handled"),
    "skipped by the group": ([*told(3), *ALL], "the group committed 3 in partition 0, and 0 had not been handled"),
    "went back": ([*ALL, *told(3), *told(2)], "went back from 3 to 2"),
    "forgotten altogether": ([*ALL, *told(3), *told(-1)], "went back from 3 to -1"),
    "an acknowledged commit that is not there": ([*ALL, commit("x", 3), *told(2)], "3 was acknowledged as committed in partition 0, and the broker tells 2"),
    "a commit while the broker is asked": ([*ALL, done("asking"), commit("x", 3), told(2)[1]], ""),
    "two owners": ([assigned("x", 0), *ALL, assigned("y", 0, 1)], "y got [0], which x still has"),
    "an owner that was killed": ([assigned("x", 0), *ALL, done("kill", "x"), assigned("y", 0)], ""),
    "an owner that is paused": ([assigned("x", 0), *ALL, done("pause", "x"), assigned("y", 0)], ""),
    "an owner that came back": ([assigned("x", 0), *ALL, done("pause", "x"), done("continue", "x", zombie=True), assigned("x", 0), assigned("y", 0)], "y got [0], which x still has"),
    "all of an eager assignment": ([assigned("x", 0, 1), *ALL, assigned("x", 1, all=True), assigned("y", 0)], ""),
    "two owners in one generation": ([assigned("x", 0, g=4), *ALL, gone("lost", "x", 0), assigned("y", 0, g=4)], "in generation 4 both x and y have partition 0"),
    "another with the same instance": ([*(done("start", m, i="i") for m in "xy"), assigned("x", 0, g=4), *ALL, done("exited", "x"), assigned("y", 0, g=4)], ""),
    "another that takes the instance from a living one": ([*(done("start", m, i="i") for m in "xy"), assigned("x", 0), *ALL, assigned("y", 0)], ""),
    "another with another instance": ([*(done("start", m, i=m) for m in "xy"), assigned("x", 0), *ALL, assigned("y", 0)], "y got [0], which x still has"),
    "a zombie's commit": ([*ALL, done("pause", "x"), done("continue", "x", zombie=True), commit("x", 3)], "its commit {'0': 3} was accepted"),
    "a commit that was under way at the pause": ([*ALL, done("pause", "x"), *told(3), *told(3), done("continue", "x", zombie=True), commit("x", 3)], ""),
    "a zombie's commit of what others committed": ([*ALL, done("pause", "x"), *told(1), *told(1), *told(3), done("continue", "x", zombie=True), commit("x", 3)],
                                                   "was accepted"),
    "a zombie that knows and begins anew": ([*ALL, done("pause", "x"), done("continue", "x", zombie=True), gone("lost", "x", 0), commit("x", 3)], ""),
    "a zombie that was refused": ([*ALL, done("pause", "x"), done("continue", "x", zombie=True), commit("x", 3, "refused"), assigned("x"), commit("x", 3)], ""),
}


class Journals(unittest.TestCase):
    def test_each(self):
        for name, (lines, wanted) in CASES.items():
            with self.subTest(name):
                faults = Checker(ACKNOWLEDGED).run(lines).faults
                self.assertEqual(len(faults), 1 if wanted else 0, faults)
                self.assertIn(wanted, "".join(faults))

    def test_orderly_changes_excuse_clients_that_cannot_commit_in_time(self):
        lines = CASES["again after an orderly start"][0]
        self.assertEqual(Checker(ACKNOWLEDGED, orderly=False).run(lines).faults, [])

    def test_a_client_that_gives_up_silently_handles_nothing_more(self):
        taken = [assigned("x", 0), *ALL, assigned("y", 0)]
        late = handled("x", 3, "d")
        for lines, wanted in ((taken, []), ([*taken, late], ["line 6: x handled (0, 3), and y has that partition"]), ([*taken, assigned("x", 0), late], [])):
            self.assertEqual(Checker(ACKNOWLEDGED, tells=False).run(lines).faults, wanted)

    def test_counts(self):
        verdict = Checker(ACKNOWLEDGED).run(CASES["a zombie that was refused"][0])
        self.assertEqual((verdict.handled, verdict.again, verdict.commits, verdict.refused, verdict.zombies_refused), (3, 0, 1, 1, 1))


if __name__ == "__main__":
    unittest.main()
