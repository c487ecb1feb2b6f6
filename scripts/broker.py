"""A real broker process for the scripts: started on a free port, known ready by its `ready: kafka HOST:PORT` line, ended by id."""

import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

READY = "ready: kafka "
READY_ADMIN = "ready: admin "
READY_SECONDS_MAX = 60
STOP_SECONDS_MAX = 60


class NotReady(Exception):
    """The broker ended, or stayed silent, before its ready line."""


class Broker:
    """One broker over one data folder. Its output goes to `log`; `start_ms` is from spawn to ready; `metrics` is where it tells
    its metrics, if that is asked for."""

    def __init__(self, program, data, listen="127.0.0.1:0", more=(), keep=False, metrics=False):
        self.program, self.data, self.listen, self.more = Path(program), Path(data), listen, list(more)
        self.more += ["--set", "admin.listen=127.0.0.1:0"] if metrics else []
        self.log = self.data.with_name(self.data.name + ".log")
        self.process = self.address = self.metrics = self.start_ms = None
        if not keep:
            shutil.rmtree(self.data, ignore_errors=True)
            self.log.unlink(missing_ok=True)
        self.data.parent.mkdir(parents=True, exist_ok=True)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        if self.process is not None and self.ended() is None:
            self.stop()

    def start(self, on_line=None):
        """Starts the process and waits for its ready line. `on_line` sees every line that it prints before that."""
        started = time.monotonic()
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen([str(self.program), "start", "--data", str(self.data), "--listen", self.listen, *self.more],
                                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True, errors="replace")
        timer = threading.Timer(READY_SECONDS_MAX, self.process.kill)
        timer.start()
        self.address, self.metrics, before = None, None, []
        for line in self.process.stdout:
            before.append(line)
            if on_line:
                on_line(line)
            if line.startswith(READY_ADMIN):
                self.metrics = line[len(READY_ADMIN):].strip()
            if line.startswith(READY):
                self.address = line[len(READY):].strip()
                break
        timer.cancel()
        with open(self.log, "a", encoding="utf-8") as log:
            log.writelines(before)
        if self.address is None:
            self.process.stdout.close()
            raise NotReady(f"{self.program} start ended with status {self.process.wait()} before its ready line; output in {self.log}")
        self.start_ms = (time.monotonic() - started) * 1000
        # Whatever else it prints is kept, and its pipe never fills up.
        threading.Thread(target=self._drain, args=(self.process.stdout,), daemon=True).start()
        return self

    def _drain(self, output):
        with output, open(self.log, "a", encoding="utf-8") as log:
            for line in output:
                log.write(line)
                log.flush()

    def ended(self):
        """The status if the process has ended, else None."""
        return self.process.poll()

    def kill(self):
        """kill -9, now."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        """SIGTERM; the status it ended with, or None where it had to be killed."""
        self.process.terminate()
        try:
            return self.process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.kill()
            return None
