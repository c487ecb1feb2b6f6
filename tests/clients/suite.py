"""The frame that every Python suite here stands in: cases, counts and the closing line.

A suite registers cases with `@suite.case("name")`; a case fails by raising, is a counted skip by raising `Skip`, and
passes otherwise. A case that fails does not stop those after it. The closing line is `N passed, N failed, N skipped`,
which `run` and `scripts/test` add up.

What is written and read back is `records()`: the same awkward set for every client, so that a difference between two
clients is the client's or the broker's, never the data's.
"""

import argparse
import sys
import time
import traceback
from dataclasses import dataclass, field

READ_DEADLINE_S = 60
RECORDS_PER_CASE = 120


class Skip(Exception):
    """This case cannot run here; the message says why."""


@dataclass(frozen=True)
class Record:
    """One record as a client sees it. `headers` is a tuple of (name, bytes or None) pairs, in order."""

    key: bytes | None
    value: bytes | None
    headers: tuple = ()


@dataclass
class Suite:
    name: str
    cases: list = field(default_factory=list)

    def case(self, name):
        def register(function):
            self.cases.append((name, function))
            return function

        return register

    def main(self, make_context):
        """Parses --bootstrap, runs every case with the context made from it, and exits 0 only if none failed."""
        parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
        parser.add_argument("--bootstrap", required=True, metavar="HOST:PORT")
        parser.add_argument("--only", default="", metavar="TEXT", help="run only the cases whose name contains TEXT")
        args = parser.parse_args()
        self.cases = [(name, function) for name, function in self.cases if args.only in name]
        sys.exit(self.run(make_context(args.bootstrap)))

    def run(self, context):
        passed = failed = skipped = 0
        for name, function in self.cases:
            started = time.monotonic()
            try:
                function(context)
            except Skip as why:
                skipped += 1
                print(f"skip {self.name}: {name}: {why}", flush=True)
            except Exception as error:  # a case may fail in any way its client can
                failed += 1
                traceback.print_exc()
                print(f"FAIL {self.name}: {name}: {type(error).__name__}: {error}", flush=True)
            else:
                passed += 1
                print(f"ok   {self.name}: {name} ({time.monotonic() - started:.1f} s)", flush=True)
        print(f"{self.name}: {passed} passed, {failed} failed, {skipped} skipped", flush=True)
        return 1 if failed else 0


def records(count=RECORDS_PER_CASE, headers=True):
    """`count` records: null and empty keys and values, repeated and null headers, binary and large values."""
    out = []
    for index in range(count):
        key = None if index % 7 == 0 else b"" if index % 29 == 3 else b"key-%d" % (index % 10)
        if index % 11 == 5:
            value = None
        elif index % 13 == 4:
            value = b""
        else:
            value = b"%06d:" % index + bytes((index + at) % 256 for at in range(index * 17 % 900))
        with_headers = ()
        if headers and index % 5 == 0:
            with_headers = (("trace", b"%d" % index), ("empty", b""), ("null", None), ("trace", b"again"), ("\u00e9t\u00e9", b"\x00\xff"))
        out.append(Record(key, value, with_headers))
    return out


def expect(got, wanted, what):
    """Both sides of a difference, cut to what a person can read."""
    if got != wanted:
        if isinstance(got, list) and isinstance(wanted, list):
            where = next((at for at, pair in enumerate(zip(got, wanted)) if pair[0] != pair[1]), min(len(got), len(wanted)))
            got, wanted = (f"{len(side)} items, at {where}: {side[where:where + 2]!r}"[:400] for side in (got, wanted))
        raise AssertionError(f"{what}: got {got!s:.500}, wanted {wanted!s:.500}")


def fresh(prefix):
    """A topic name that no other run uses, so that a suite can run twice on one broker."""
    fresh.count += 1
    return f"{prefix}-{time.time_ns() // 1_000_000:x}-{fresh.count}"


fresh.count = 0


def until(deadline_s, what):
    """Yields until the deadline has passed, then fails with what was waited for."""
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        yield
    raise AssertionError(f"waited {deadline_s} s for {what}")
