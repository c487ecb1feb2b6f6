"""The applications: how each is installed and started, and what is known of its client."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "clients"))
import install  # noqa: E402


@dataclass(frozen=True)
class Application:
    """`prepare(tools)` gives the command and the environment. `orderly`: the client lets an application commit before it
    gives a partition up, so that members that come and go make nothing happen twice. `tells`: it tells the application of each partition
    that it gives up before it does. `static`: its members have instances, which outlive them. `default`: it runs in scripts/test."""

    prepare: Callable
    protocol: str
    orderly: bool = True
    tells: bool = True
    static: bool = False
    default: bool = True


def python(name):
    return lambda tools: ([install.python(tools), "-B", str(HERE / "python" / name)], {})


def kafkajs(tools):
    return ["node", str(HERE / "kafkajs/app.js")], install.kafkajs(tools)


def go(name):
    return lambda tools: ([install.go(tools, HERE / name, f"apps-{name}")], {})


def java(tools):
    """Compiled once, and started without the optimizing compiler: six virtual machines start at once on a small machine."""
    classes, source, path = tools / "java/apps", HERE / "java/GroupApp.java", install.java(tools)
    install.install(tools / "java-apps.done", [source], [(["javac", "-Xlint:all", "-Werror", "-cp", path, "-d", str(classes), str(source)], {})])
    return ["java", "-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", f"{path}:{classes}", "GroupApp"], {}


# kafka-python's cooperative-sticky is not here: its member that was removed claims its former partitions when it comes back
# (3.0.12), and the leader, a client like it, believes that. So two members have them for a while, on Kafka as here.
APPLICATIONS = {
    "confluent-range": Application(python("confluent_app.py"), "range"),
    "confluent-cooperative": Application(python("confluent_app.py"), "cooperative-sticky", default=False),
    "confluent-static": Application(python("confluent_app.py"), "range", static=True),
    "confluent-consumer": Application(python("confluent_app.py"), "consumer"),
    "kafka-python": Application(python("kafka_python_app.py"), "range"),
    "aiokafka": Application(python("aiokafka_app.py"), "range"),
    "kafkajs": Application(kafkajs, "roundrobin", tells=False),
    "franz-go-range": Application(go("franz-go"), "range", default=False),
    "franz-go-cooperative": Application(go("franz-go"), "cooperative-sticky"),
    "franz-go-consumer": Application(go("franz-go"), "consumer"),
    "sarama": Application(go("sarama"), "range"),
    "sarama-sticky": Application(go("sarama"), "sticky", default=False),
    "java-range": Application(java, "range", default=False),
    "java-cooperative": Application(java, "cooperative-sticky"),
    "java-static": Application(java, "cooperative-sticky", static=True, default=False),
    "java-consumer": Application(java, "consumer"),
}
