"""benchmark-groups tells made-up findings as they are: medians, growth for each, and which aims were met."""

import importlib.machinery
import importlib.util
import unittest
from pathlib import Path

SCRIPT = Path(__file__).resolve().parent.parent / "benchmark-groups"
LOADER = importlib.machinery.SourceFileLoader("benchmark_groups", str(SCRIPT))
SPEC = importlib.util.spec_from_loader("benchmark_groups", LOADER)
groups = importlib.util.module_from_spec(SPEC)
LOADER.exec_module(groups)


def memory(resident, heap=None, buffers=None):
    return {"resident": resident, "heap": heap, "buffers": buffers}


def committed(per_s):
    latency = {"count": 9, "p50_ms": 1.0, "p99_ms": 2.0}
    figures = {"commits_per_s": per_s, "offsets_per_s": per_s, "broker_cpu_us_per_commit": 5.0}
    one = {"figures": figures, "latencies": {"commit latency": latency}, "saturated": None, "client_bound": None}
    return {name: one for name, _ in groups.COMMITS}


def paused(ms):
    times = ("member pause", "partition pause", "settled after a join", "settled after a leave")
    one = {"latencies": {name: {"count": 1 if ms else 0, "p50_ms": ms, "p99_ms": ms} for name in times}}
    return {protocol: one for protocol in groups.PROTOCOLS}


class Tells(unittest.TestCase):
    def test_growth_is_for_each_one(self):
        pairs = [(memory(1_000, 500), memory(3_000, 1_500))]
        self.assertEqual(groups.grown(pairs, 10), {"resident": [200], "buffers": [], "heap": [100], "other": []})
        pairs = [(memory(1_000, None, 100), memory(3_000, None, 900))]
        self.assertEqual(groups.grown(pairs, 10)["other"], [120])

    def test_aims_are_met_or_missed_by_the_medians(self):
        commits = {"Corelog": [committed(20), committed(90), committed(60)], "Kafka": [committed(30)]}
        offsets = {
            "Corelog": [{"all": {"memory": [memory(0, None, 0), memory(groups.OFFSETS * 80, None, groups.OFFSETS * 20)]}}],
            "Kafka": [{"all": {"memory": [memory(0, 0), memory(0, groups.OFFSETS * 100)]}}],
        }
        pauses = {"Corelog": [paused(0)], "Kafka": [paused(5)]}
        flushed = {"Corelog": [committed(60)], "Kafka F": [committed(40)]}
        results = {"commit": commits, "flushed": flushed, "offsets": offsets, "pause": pauses}
        found = {name: (times, is_met) for name, _, times, is_met in groups.aims(results)}
        self.assertEqual(found["commits per second, 16 connections; Kafka does not flush"], (2, True))
        self.assertEqual(found["commits per second, 16 connections; both flush before they answer"], (1.5, False))
        self.assertEqual(found["memory of a committed offset: ours without buffers beside Kafka's heap"], (0.6, False))
        self.assertEqual(found["member pause, classic, p99"], (0, True))
        self.assertFalse(any("open loop" in name or "of a member" in name for name in found))

    def test_tables_have_a_cell_under_each_head(self):
        lines = groups.tell_commit({"Corelog": [committed(1234)], "Kafka F": [committed(2)]})
        lines += groups.tell_pause({"Corelog": [paused(3)], "Kafka": [paused(4)]})
        for line in filter(None, lines):
            head = next(one for one in reversed(lines[:lines.index(line) + 1]) if "---" not in one and one and (lines.index(one) == 0 or not lines[lines.index(one) - 1]))
            self.assertEqual(line.count("|"), head.count("|"), line)
        self.assertIn("1,234", "".join(lines))


if __name__ == "__main__":
    unittest.main()
