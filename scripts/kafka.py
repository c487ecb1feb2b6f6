"""A real Apache Kafka broker for the scripts: started on free ports over a fresh folder, ended by id. Needs Java 17 or newer.

Its jars are a distribution's (a folder with `libs` or `lib`), or are fetched from Maven Central by `jars`.
"""

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

VERSION = "4.3.1"
READY_SECONDS_MAX = 60
STOP_SECONDS_MAX = 60
FETCH_SECONDS_MAX = 600
POM = """<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>corelog.scripts</groupId><artifactId>kafka</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{version}</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-nop</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
"""


class Missing(Exception):
    """What this machine lacks for a Kafka."""


def jars(folder):
    """The folder of a distribution that was fetched into `folder`, once; CORELOG_KAFKA names one that is there already."""
    if shutil.which("java") is None:
        raise Missing("java is not installed")
    if "CORELOG_KAFKA" in os.environ:
        return Path(os.environ["CORELOG_KAFKA"])
    home = Path(folder) / f"kafka-{VERSION}"
    if not (home / "fetched").exists():
        if shutil.which("mvn") is None:
            raise Missing("mvn is not installed, and CORELOG_KAFKA names no Kafka distribution")
        home.mkdir(parents=True, exist_ok=True)
        (home / "pom.xml").write_text(POM.format(version=VERSION), encoding="utf-8")
        subprocess.run(["mvn", "-q", "-B", f"-Dmaven.repo.local={home / 'repository'}", "-f", str(home / "pom.xml"), "dependency:copy-dependencies",
                        f"-DoutputDirectory={home / 'libs'}", "-DincludeScope=runtime"], check=True, stdin=subprocess.DEVNULL, timeout=FETCH_SECONDS_MAX)
        (home / "fetched").touch()
    return home


def free_ports(count):
    """Ports that are free now; held together so that they differ."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [held.getsockname()[1] for held in sockets]
    for held in sockets:
        held.close()
    return ports


class Kafka:
    """One Kafka broker in KRaft mode, with its defaults but for `settings`."""

    def __init__(self, home, folder, settings=None):
        found = next((home / name for name in ("libs", "lib") if list((home / name).glob("kafka-server*.jar")) or list((home / name).glob("kafka_*.jar"))), None)
        if found is None:
            raise Missing(f"{home} is no Kafka distribution: no kafka_*.jar in its libs")
        self.java = ["java", "-cp", f"{found}/*"]
        self.folder, self.settings = folder, settings or {}
        folder.mkdir(parents=True)

    def __enter__(self):
        client, quorum = free_ports(2)
        self.address = f"127.0.0.1:{client}"
        lines = {
            "process.roles": "broker,controller", "node.id": "1", "controller.quorum.voters": f"1@127.0.0.1:{quorum}",
            "listeners": f"PLAINTEXT://{self.address},CONTROLLER://127.0.0.1:{quorum}", "advertised.listeners": f"PLAINTEXT://{self.address}",
            "inter.broker.listener.name": "PLAINTEXT", "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT", "log.dirs": str(self.folder / "data"),
            "offsets.topic.replication.factor": "1", "transaction.state.log.replication.factor": "1", "transaction.state.log.min.isr": "1",
            **self.settings,
        }
        self.config = self.folder / "server.properties"
        self.config.write_text("".join(f"{key}={value}\n" for key, value in lines.items()), encoding="utf-8")
        tool = [*self.java, "kafka.tools.StorageTool"]
        uuid = subprocess.run([*tool, "random-uuid"], check=True, capture_output=True, text=True).stdout.split()[-1]
        with open(self.folder / "log", "ab") as log:
            subprocess.run([*tool, "format", "-t", uuid, "-c", str(self.config)], check=True, stdout=log, stderr=log)
        return self.start()

    def start(self):
        """Starts it over its folder, the first time or after `kill`, on the same ports; waits until it listens."""
        heap = os.environ.get("KAFKA_HEAP", "1g")
        options = [f"-Xms{heap}", f"-Xmx{heap}", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-XX:InitiatingHeapOccupancyPercent=35"]
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen([self.java[0], *options, *self.java[1:], "kafka.Kafka", str(self.config)], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        port = int(self.address.rsplit(":", 1)[1])
        deadline = time.monotonic() + READY_SECONDS_MAX
        while time.monotonic() < deadline and self.process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return self
            time.sleep(0.1)
        self.__exit__()
        raise SystemExit(f"Kafka did not start: {(self.folder / 'log').read_text(errors='replace')[-2000:]}")

    def kill(self):
        """kill -9, now."""
        self.process.kill()
        self.process.wait()

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
