"""The parity suite's own parts: its codec against bytes that Kafka wrote, its batches, what it calls a difference."""

import csv
import sys
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests/parity"))
import compare  # noqa: E402
import records  # noqa: E402
import schema  # noqa: E402
from scenario import Play, load  # noqa: E402

csv.field_size_limit(1 << 30)


class Codec(unittest.TestCase):
    def test_every_golden_message_is_read_and_written_again(self):
        known = 0
        for row in schema.table("golden.tsv"):
            if row["message"] not in schema.MESSAGES or row["kind"] not in ("request", "response"):
                continue
            message, version, data = schema.MESSAGES[row["message"]], int(row["version"]), bytes.fromhex(row["hex"])
            with self.subTest(message=row["message"], version=version):
                self.assertEqual(message.encode(message.decode(data, version), version), data)
                known += 1
        self.assertGreater(known, 1000)

    def test_an_unknown_field_is_a_mistake(self):
        with self.assertRaises(ValueError):
            schema.MESSAGES["MetadataRequest"].encode({"Topic": []}, 1)


class Batches(unittest.TestCase):
    def test_crc_and_fields(self):
        self.assertEqual(records.crc32c(b"123456789"), 0xE3069283)
        got, = records.decode(records.encode({"records": ["a", {"value": "b", "key": "k"}], "codec": "gzip", "sequence": 7}))
        self.assertEqual((got["crc"], got["count"], got["sequence"]), ("right", 2, 7))
        self.assertEqual([(one["key"], one["value"]) for one in got["records"]], [(None, "a"), ("k", "b")])

    def test_what_is_no_batch_stays_as_it_is(self):
        self.assertEqual(records.decode(b"short"), ["short"])


class Compare(unittest.TestCase):
    def check(self, kafka, ours, expect):
        self.assertEqual(list(compare.by_step([{"A": kafka}], [{"A": ours}])), expect)

    def test_differences(self):
        self.check({"x": [1, 2]}, {"x": [1, 2]}, [])
        self.check({"x": [1, 2]}, {"x": [1, 3]}, [("1.A.x.1", 2, 3)])
        self.check({"x": [1, 2]}, {"x": [1]}, [("1.A.x.count", 2, 1)])
        self.check({"x": 0}, {"x": False}, [("1.A.x", 0, False)])
        self.check({"x": 1}, "closed", [("1.A", {"x": 1}, "closed")])

    def test_a_declaration_is_as_narrow_as_it_says(self):
        declared = [{"at": "1.*.x", "kafka": 1, "versions": [3]}]
        self.assertEqual(compare.declared(declared, "1.A.x", 1, 2, 3), 0)
        self.assertIsNone(compare.declared(declared, "1.A.x", 1, 2, 4))
        self.assertIsNone(compare.declared(declared, "1.A.x", 0, 2, 3))
        self.assertIsNone(compare.declared(declared, "2.A.x", 1, 2, 3))

    def test_names_and_ids_become_variables(self):
        class Scenario:
            topics, steps, let, api, slow = {"t": 1}, [], {"id": 7}, "", False

        play = Play(Scenario, 3, "", {}, "abcd")
        topic = play.values["t"]
        got = compare.normal([{"Metadata": {"Name": topic, "TopicId": play.ids[topic], "ProducerId": 7}}], play.symbols(), play.numbers())
        self.assertEqual(got, [{"Metadata": {"Name": "$t", "TopicId": "$t.id", "ProducerId": "$id"}}])


class Scenarios(unittest.TestCase):
    def test_all_are_well_formed(self):
        _, scenarios = load()
        for one in scenarios:
            with self.subTest(scenario=str(one)):
                for differs in one.differs:
                    self.assertEqual(len({"meant", "defect"} & set(differs)), 1)
                    self.assertLessEqual(set(differs), {"at", "kafka", "ours", "versions", "meant", "defect"})


if __name__ == "__main__":
    unittest.main()
