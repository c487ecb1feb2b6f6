"""Broker waits for the ready line, keeps the output, reports an early end, and stops by SIGTERM or kill -9."""

import signal
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from broker import Broker, NotReady  # noqa: E402

STAND_IN = """#!/bin/sh
trap 'exit 0' TERM
echo "banner for $*"
echo "ready: kafka 127.0.0.1:4242"
while :; do read -r line < /dev/null || :; command -v true > /dev/null; done
"""


class BrokerProcess(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def broker(self, script, **more):
        program = Path(self.folder.name) / "corelog"
        program.write_text(script, encoding="utf-8")
        program.chmod(0o755)
        return Broker(program, Path(self.folder.name) / "data", **more)

    def test_ready_then_stopped(self):
        lines = []
        broker = self.broker(STAND_IN).start(on_line=lines.append)
        self.assertEqual(broker.address, "127.0.0.1:4242")
        self.assertIsNone(broker.metrics)
        self.assertEqual(lines[0].split()[:4], ["banner", "for", "start", "--data"])
        self.assertIsNone(broker.ended())
        self.assertEqual(broker.stop(), 0)

    def test_metrics_are_asked_for_and_found(self):
        script = STAND_IN.replace('echo "ready: kafka', 'echo "ready: admin 127.0.0.1:4243"\necho "ready: kafka')
        lines = []
        broker = self.broker(script, metrics=True).start(on_line=lines.append)
        self.assertEqual((broker.address, broker.metrics), ("127.0.0.1:4242", "127.0.0.1:4243"))
        self.assertIn("--set admin.listen=127.0.0.1:0", lines[0])
        self.assertEqual(broker.stop(), 0)

    def test_killed(self):
        broker = self.broker(STAND_IN).start()
        broker.kill()
        self.assertEqual(broker.ended(), -signal.SIGKILL)

    def test_ended_before_ready(self):
        broker = self.broker("#!/bin/sh\necho port taken\nexit 3\n")
        with self.assertRaisesRegex(NotReady, "status 3"):
            broker.start()
        self.assertIn("port taken", broker.log.read_text(encoding="utf-8"))

    def test_folder_kept_or_fresh(self):
        data = Path(self.folder.name) / "data"
        data.mkdir()
        self.broker(STAND_IN, keep=True)
        self.assertTrue(data.exists())
        self.broker(STAND_IN)
        self.assertFalse(data.exists())


if __name__ == "__main__":
    unittest.main()
