"""check-hazards finds a hazard without a test, and a test named after none."""

import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

SCRIPT = Path(__file__).resolve().parent.parent / "check-hazards"
ALL = ["a1", "a2", "a3", "a4", "a5", "a6", "a12", "a13", "a14", "a15"]


class CheckHazards(unittest.TestCase):
    def run_on(self, hazards, attribute="#[test]\n"):
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "engine/src/tests.rs"
            source.parent.mkdir(parents=True)
            source.write_text("".join(f"{attribute}fn hazard_{hazard}_is_shown() {{}}\n" for hazard in hazards), encoding="utf-8")
            done = subprocess.run([sys.executable, str(SCRIPT), folder], capture_output=True, text=True, check=False)
            return done.returncode, done.stdout

    def test_all_there(self):
        self.assertEqual(self.run_on(ALL)[0], 0)
        self.assertEqual(self.run_on([*ALL, "b2", "a11"])[0], 0)

    def test_one_missing(self):
        status, said = self.run_on([hazard for hazard in ALL if hazard != "a3"])
        self.assertEqual(status, 1)
        self.assertIn("hazard A3 has no test", said)

    def test_a_function_that_is_no_test_does_not_count(self):
        self.assertEqual(self.run_on(ALL, attribute="")[0], 1)

    def test_an_unknown_hazard(self):
        status, said = self.run_on([*ALL, "a99"])
        self.assertEqual(status, 1)
        self.assertIn("hazard_a99_", said)


if __name__ == "__main__":
    unittest.main()
