#!/usr/bin/env python3
"""Every `bench groups` command against a broker, small: it ends well, its checks hold, and they do find what is not there.

    tests/bench/groups.py --bench PROGRAM --bootstrap HOST:PORT

The closing line is `N passed, N failed, N skipped`.
"""

import argparse
import json
import subprocess
import sys

RUN_SECONDS_MAX = 120
MEMBERS = ["--members", "3", "--heartbeat", "100ms"]
OFFSETS = 1_000
FILL = ["fill", "--offsets", OFFSETS, "--partitions", "10", "--topic", "ten"]
GOOD, FAILED = 0, 1


def positive(*names):
    return lambda report: all(report["figures"][name] > 0 for name in names)


def paused(report):
    taken = report["latencies"]
    return taken["settled after a join"]["count"] == 2 and taken["partition pause"]["count"] > 0


def read_all(report):
    return report["records"] == 2_000 and report["verdict"] is None


# What is told to bench, the status it must end with, and what its report must say.
CASES = [
    *((["groups", "join", *MEMBERS, "--protocol", protocol], GOOD, positive("assigned_after_ms")) for protocol in ("classic", "consumer")),
    *((["groups", "pause", *MEMBERS, "--churn", 2, "--protocol", protocol], GOOD, paused) for protocol in ("classic", "consumer")),
    (["groups", "commit", "--connections", 2, "--groups", 5, "--duration", "300ms", "--warmup", "0s"], GOOD, positive("commits_per_s", "ceiling_commits_per_s")),
    (["groups", "commit", "--connections", 2, "--groups", 2, "--rate", 50, "--duration", "300ms", "--warmup", "0s"], GOOD, lambda report: report["target_per_s"] == 50),
    (["groups", "commit", "--connections", 3, "--groups", 2], FAILED, None),
    (["groups", *FILL], GOOD, lambda report: report["figures"]["offsets"] == OFFSETS),
    (["groups", *FILL, "--wait-loaded"], GOOD, positive("loaded_after_ms")),
    # One more than was committed is missed.
    (["groups", "fill", "--offsets", OFFSETS + 1, *FILL[3:], "--wait-loaded"], FAILED, None),
    (["produce", "--records", 2_000, "--topic", "read", "--no-ceiling"], GOOD, lambda report: report["total_acknowledged"] == 2_000),
    *((["groups", "consume", *MEMBERS, "--topic", "read", "--protocol", protocol], GOOD, read_all) for protocol in ("classic", "consumer")),
    # Twelve partitions are too few for thirteen members.
    (["groups", "join", "--members", 13, "--topic", "read"], FAILED, None),
]


def check(program, bootstrap, arguments, status, holds):
    """What is wrong, if anything is."""
    words = [program, *map(str, arguments), "--bootstrap", bootstrap, "--json", "--quiet"]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=RUN_SECONDS_MAX, check=False)
    if done.returncode != status:
        return f"ended with {done.returncode} instead of {status}: {done.stderr.strip()[-500:]}"
    if holds is None:
        return None if done.stderr.strip() else "failed without a word"
    report = json.loads(done.stdout)
    return None if not report["errors"] and holds(report) else f"reported {done.stdout.strip()[:1000]}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", required=True)
    parser.add_argument("--bootstrap", required=True)
    args = parser.parse_args()
    failed = 0
    for case in CASES:
        wrong = check(args.bench, args.bootstrap, *case)
        failed += wrong is not None
        print(f"{'FAIL' if wrong else 'ok  '} bench {' '.join(map(str, case[0]))}" + (f": {wrong}" if wrong else ""), flush=True)
    print(f"{len(CASES) - failed} passed, {failed} failed, 0 skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
