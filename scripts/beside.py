"""What the scripts share that measure this broker beside Apache Kafka: fresh brokers of both kinds, the load generator, and figures as text."""

import json
import os
import platform
import statistics
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

from broker import Broker
from kafka import Kafka

ROOT = Path(__file__).resolve().parent.parent
# Corelog's memory budget: stated, and small enough to compare resident memory.
MEMORY_BUDGET = "256MiB"


def build():
    """Both programs with optimization; the folder they are in."""
    subprocess.run(["cargo", "build", "--release", "--locked", "-p", "corelog", "-p", "bench"], cwd=ROOT, check=True)
    out = subprocess.run(["cargo", "metadata", "--format-version", "1", "--no-deps", "--locked"], cwd=ROOT, check=True, capture_output=True)
    return Path(json.loads(out.stdout)["target_directory"]) / "release"


def folder_of():
    """The folder whose disk is measured."""
    return os.environ.get("CORELOG_BENCHMARK_DIR") or tempfile.gettempdir()


@contextmanager
def fresh(kind, programs, kafka, settings=None):
    """A broker on a folder of its own, `kafka` or `corelog`, with these settings."""
    settings = settings or {}
    with tempfile.TemporaryDirectory(prefix="corelog-benchmark-", dir=folder_of()) as folder:
        if kind == "kafka":
            broker = Kafka(kafka, Path(folder) / "kafka", settings)
        else:
            more = [word for key, value in {"memory.budget": MEMORY_BUDGET, **settings}.items() for word in ("--set", f"{key}={value}")]
            broker = Broker(programs / "corelog", Path(folder) / "corelog", more=more, metrics=True)
        with broker:
            yield broker


def command_of(programs, broker, *arguments):
    """One run of the load generator against a broker, whose usage it reports too."""
    return [str(programs / "bench"), *map(str, arguments), "--bootstrap", broker.address, "--broker-pid", str(broker.process.pid), "--quiet", "--json"]


def bench(programs, broker, *arguments):
    """Runs it; its report."""
    done = subprocess.run(command_of(programs, broker, *arguments), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    return report_of(done.stdout, done.stderr)


def report_of(stdout, stderr):
    if not stdout.strip():
        raise SystemExit(f"bench failed: {stderr[-1000:]}")
    return json.loads(stdout)


def spread(values, form):
    """Median, and lowest to highest when there are several."""
    values = [value for value in values if value is not None]
    if not values:
        return "–"
    middle = form.format(statistics.median(values))
    return middle if len(values) == 1 else f"{middle} ({form.format(min(values))}–{form.format(max(values))})"


def machine():
    """What a page says of the machine, one line."""
    cpu = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), platform.machine())
    disk = subprocess.run(["df", "--output=fstype", folder_of()], capture_output=True, text=True, check=False).stdout.split()[-1]
    return [f"- {os.cpu_count()} cores ({cpu}), kernel {platform.release()}, data on {disk}; broker and load generator share the cores, nothing pinned by this script"]
