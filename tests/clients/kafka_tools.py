#!/usr/bin/env python3
"""Kafka's own command-line tools, as users start them: each a process of its own, judged by what it prints.

kafka-topics, kafka-configs, console and verifiable producers and consumers, the performance tests, kafka-consumer-groups, and the
formatters that read `__consumer_offsets`. The jars are on CLASSPATH. Bounds of time only: what the performance tools measure is not judged.
"""

import functools
import json
import re
import subprocess
import threading

from suite import Suite, expect, fresh, until

TOOL_SECONDS_MAX = 90
EVENT_SECONDS_MAX = 60
# Started quickly rather than running fast: these processes live for a second.
JAVA = ["java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx256m"]
PARTITIONS = 3
OFFSETS_PARTITIONS = 50

suite = Suite("kafka-tools")


class Tools:
    def __init__(self, bootstrap):
        self.bootstrap = bootstrap

    def command(self, tool, words):
        full = tool if tool.startswith("kafka.") else f"org.apache.kafka.tools.{tool}"
        return [*JAVA, full, "--bootstrap-server", self.bootstrap, *words]

    def run(self, tool, *words, given=None, status=0, complaints=True):
        """What a tool printed on standard output, and after it what it complained of. No `status`: any will do."""
        done = subprocess.run(self.command(tool, words), input=given or "", capture_output=True, text=True, timeout=TOOL_SECONDS_MAX, check=False)
        if status is not None and done.returncode != status:
            raise AssertionError(f"{tool} {' '.join(words)} ended with {done.returncode}: {(done.stdout + done.stderr)[-1500:]}")
        return done.stdout + (done.stderr if complaints else "")

    def topics(self, *words, **more):
        return self.run("TopicCommand", *words, **more)

    def groups(self, *words, **more):
        return self.run("consumer.group.ConsumerGroupCommand", *words, **more)

    def configs(self, *words, **more):
        return self.run("kafka.admin.ConfigCommand", *words, **more)

    def rows(self, *words):
        """The table that kafka-consumer-groups prints, by its head: {column: cell} for each row. Cells have no spaces."""
        rows, head = [], []
        for line in self.groups(*words, complaints=False).splitlines():
            if line.startswith(("GROUP ", "TOPIC ")):
                head = re.split(r"\s{2,}", line.strip())
            elif head and line.strip():
                rows.append(dict(zip(head, re.sub(r"\s+\((\d+)\)", r"(\1)", line).split())))
        return rows

    def topic(self, partitions=PARTITIONS):
        name = fresh("tools")
        self.topics("--create", "--topic", name, "--partitions", str(partitions))
        return name

    def sent(self, topic, count):
        """`count` values, which are numbers from 0 on, by the verifiable producer: all acknowledged."""
        told = events(self.run("VerifiableProducer", "--topic", topic, "--max-messages", str(count), "--throughput", "-1", "--repeating-keys", "30"))
        expect((len(named(told, "producer_send_success")), named(told, "tool_data")[0]["acked"]), (count, count), "what was acknowledged")
        return told

    def consumed(self, count, *words):
        """What a console consumer printed of so many messages."""
        words = (*words, "--max-messages", str(count), "--timeout-ms", str(EVENT_SECONDS_MAX * 1000))
        return self.run("consumer.ConsoleConsumer", *words, complaints=False)


def events(text):
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def named(told, name):
    return [one for one in told if one["name"] == name]


class VerifiableConsumer:
    """kafka-verifiable-consumer in the background; `told` are its events so far."""

    def __init__(self, tools, topic, group, *words):
        more = ["--topic", topic, "--group-id", group, "--reset-policy", "earliest", *words]
        self.process = subprocess.Popen(tools.command("VerifiableConsumer", more), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.told = []
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        for line in self.process.stdout:
            self.told += events(line)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.reader.join()
        self.process.stdout.close()

    def partitions(self):
        """What it has now."""
        has = set()
        for one in list(self.told):
            partitions = {p["partition"] for p in one.get("partitions", ())}
            if one["name"] == "partitions_assigned":
                has |= partitions
            elif one["name"] == "partitions_revoked":
                has -= partitions
        return sorted(has)

    def committed(self):
        """The last offset of each partition that was committed."""
        offsets = {}
        for one in named(list(self.told), "offsets_committed"):
            expect(one["success"], True, f"a commit: {one}")
            offsets.update({p["partition"]: p["offset"] for p in one["offsets"]})
        return offsets

    def wait(self, what, done):
        for _ in until(EVENT_SECONDS_MAX, what):
            if done():
                return
            if self.process.poll() is not None:
                raise AssertionError(f"the consumer ended with {self.process.returncode} while waiting for {what}")
            self.reader.join(0.05)

    def stop(self):
        """SIGTERM; it leaves its group and says so."""
        self.process.terminate()
        self.process.wait(EVENT_SECONDS_MAX)
        self.reader.join()
        expect(len(named(self.told, "shutdown_complete")), 1, "words of farewell")


@suite.case("kafka-topics creates, describes, grows, lists and deletes; what is there already is refused")
def topics(t):
    name = fresh("tools")
    expect(f"Created topic {name}." in t.topics("--create", "--topic", name, "--partitions", "2", "--config", "retention.ms=100000"), True, "created")
    expect(f"Topic '{name}' already exists" in t.topics("--create", "--topic", name, status=1), True, "created again")
    t.topics("--alter", "--topic", name, "--partitions", "4")
    described = t.topics("--describe", "--topic", name)
    expect(re.findall(r"PartitionCount: (\d+)\s+ReplicationFactor: (\d+)\s+Configs: (?:.*,)?(retention.ms=\d+)", described), [("4", "1", "retention.ms=100000")], "described")
    expect(re.findall(r"Partition: (\d+)\s+Leader: (\d+)\s+Replicas: (\d+)\s+Isr: (\d+)", described), [(f"{p}", "1", "1", "1") for p in range(4)], "its partitions")
    t.topics("--delete", "--topic", name)
    expect(name in t.topics("--list").split(), False, "listed when deleted")


@suite.case("console producer and consumer: keys, headers and partitions, from the beginning and from where a group stopped, both protocols")
def console(t):
    topic, group = t.topic(), fresh("console")
    lines = [f"h:{n},trace:{n}\tkey-{n % 5}\tvalue {n}" for n in range(20)]
    t.run("ConsoleProducer", "--topic", topic, "--reader-property", "parse.key=true", "--reader-property", "parse.headers=true", given="\n".join(lines) + "\n")
    show = [word for name in ("key", "headers") for word in ("--formatter-property", f"print.{name}=true")]
    expect(sorted(t.consumed(20, "--topic", topic, "--from-beginning", *show).splitlines()), sorted(lines), "from the beginning, in a group of its own")

    def in_group(protocol, count):
        said = t.consumed(count, "--topic", topic, "--group", f"{group}-{protocol}", "--from-beginning", "--command-property", f"group.protocol={protocol}")
        return sorted(said.splitlines())

    for protocol in ("classic", "consumer"):
        expect(in_group(protocol, 20), sorted(line.split("\t")[2] for line in lines), f"{protocol}: the first time")
    t.run("ConsoleProducer", "--topic", topic, given="late\n")
    for protocol in ("classic", "consumer"):
        expect(in_group(protocol, 1), ["late"], f"{protocol}: the second time")


def verifiable(protocol):
    @suite.case(f"verifiable producer and consumers, {protocol}: two share, one leaves, the other takes over, everything is committed")
    def share(t):
        topic, group = t.topic(), fresh(f"verifiable-{protocol}")
        words = ("--group-protocol", protocol)
        with VerifiableConsumer(t, topic, group, *words) as stays:
            with VerifiableConsumer(t, topic, group, *words) as goes:
                both = (stays, goes)
                stays.wait("both to have partitions", lambda: all(one.partitions() for one in both) and sorted(stays.partitions() + goes.partitions()) == [0, 1, 2])
                t.sent(topic, 300)
                stays.wait("everything to be committed", lambda: sum({**stays.committed(), **goes.committed()}.values()) == 300)
                described = t.rows("--describe", "--group", group)
                expect([(row["TOPIC"], row["LAG"]) for row in described], [(topic, "0")] * PARTITIONS, "what kafka-consumer-groups says of their lag")
                goes.stop()
            stays.wait("the one that stays to have all", lambda: stays.partitions() == [0, 1, 2])
            t.sent(topic, 60)
            stays.wait("the rest to be committed", lambda: sum({**goes.committed(), **stays.committed()}.values()) == 360)
            stays.stop()
        consumed = [sum(one["count"] for one in named(consumer.told, "records_consumed")) for consumer in both]
        expect(sum(consumed), 360, f"records that were consumed, {consumed}")


def described_while_active(protocol):
    @suite.case(f"kafka-consumer-groups on an active {protocol} group: list, members, state, offsets; no reset and no deletion under it")
    def active(t):
        topic, group = t.topic(), fresh(f"active-{protocol}")
        t.sent(topic, 90)
        with VerifiableConsumer(t, topic, group, "--group-protocol", protocol) as member:
            member.wait("everything to be committed", lambda: sum(member.committed().values()) == 90)
            listed = [row for row in t.rows("--list", "--state", "--type") if row["GROUP"] == group]
            expect([(row["TYPE"].lower(), row["STATE"]) for row in listed], [(protocol, "Stable")], "listed")
            rows = t.rows("--describe", "--group", group, "--offsets")
            expect(sorted((row["TOPIC"], row["PARTITION"], row["LAG"], row["HOST"]) for row in rows), [(topic, f"{p}", "0", "/127.0.0.1") for p in range(PARTITIONS)], "offsets")
            expect(sum(int(row["CURRENT-OFFSET"]) for row in rows), 90, "what is committed")
            members = t.rows("--describe", "--group", group, "--members", "--verbose")
            expect([row["#PARTITIONS"] for row in members], ["3"], "members")
            expect(f"{topic}:0,1,2" in members[0].values(), True, f"what the member has: {members}")
            state = t.rows("--describe", "--group", group, "--state", "--verbose")
            expect([(row["STATE"], row["#MEMBERS"]) for row in state], [("Stable", "1")], "state")
            # Refusals are told in words, with the status of success.
            refused = t.groups("--reset-offsets", "--group", group, "--topic", topic, "--to-earliest", "--execute")
            expect("inactive" in refused, True, f"a reset under a member: {refused}")
            refused = t.groups("--delete", "--group", group)
            expect("GroupNotEmptyException" in refused, True, f"a deletion under a member: {refused}")
            refused = t.groups("--delete-offsets", "--group", group, "--topic", topic)
            expect("subscribed" in refused, True, f"deleting offsets under a member: {refused}")
            member.stop()
        expect([(row["STATE"], row["#MEMBERS"]) for row in t.rows("--describe", "--group", group, "--state")], [("Empty", "0")], "state at the end")


for name in ("classic", "consumer"):
    verifiable(name)
    described_while_active(name)


@suite.case("kafka-consumer-groups on an empty group: every kind of reset, dry or not, offsets deleted, the group deleted")
def resets(t):
    topic, group = t.topic(1), fresh("resets")
    told = t.sent(topic, 50)
    with VerifiableConsumer(t, topic, group, "--max-messages", "20") as member:
        member.process.wait(EVENT_SECONDS_MAX)

    def reset(*words):
        return [(row["TOPIC"], row["PARTITION"], row["NEW-OFFSET"]) for row in t.rows("--reset-offsets", "--group", group, *words)]

    def current():
        return [row["CURRENT-OFFSET"] for row in t.rows("--describe", "--group", group)]

    of_topic = ("--topic", topic)
    expect(current(), ["20"], "before any reset")
    expect(reset(*of_topic, "--to-latest", "--dry-run"), [(topic, "0", "50")], "a dry run")
    expect(current(), ["20"], "after a dry run")
    expect(reset("--topic", f"{topic}:0", "--shift-by", "-5", "--execute"), [(topic, "0", "15")], "a shift of one partition")
    expect(current(), ["15"], "after a shift")
    expect(reset("--all-topics", "--to-offset", "70", "--execute"), [(topic, "0", "50")], "beyond the end")
    expect(reset(*of_topic, "--to-datetime", "2020-01-01T00:00:00.000", "--execute"), [(topic, "0", "0")], "to a time before everything")
    expect(reset(*of_topic, "--by-duration", "PT0S", "--dry-run"), [(topic, "0", "50")], "to a time after everything")
    expect(t.groups("--reset-offsets", "--group", group, *of_topic, "--to-current", "--export", "--dry-run").split()[-1], f"{topic},0,0", "exported")
    expect("Successful" in t.groups("--delete-offsets", "--group", group, *of_topic), True, "offsets deleted")
    expect(current(), [], "when they are deleted")
    expect("was successful" in t.groups("--delete", "--group", group), True, "deleted")
    expect("GroupIdNotFoundException" in t.groups("--delete", "--group", group), True, "deleted again")
    expect([one["offset"] for one in named(told, "producer_send_success")], list(range(50)), "the offsets that were acknowledged")


@suite.case("Kafka's formatters read groups and offsets out of __consumer_offsets")
def offsets_topic(t):
    topic, group = t.topic(1), fresh("formatted")
    t.sent(topic, 10)
    with VerifiableConsumer(t, topic, group, "--max-messages", "10") as member:
        member.process.wait(EVENT_SECONDS_MAX)

    # Kafka spreads groups by Java's String.hashCode, without its sign.
    code = functools.reduce(lambda so_far, char: (31 * so_far + ord(char)) & 0xFFFFFFFF, group, 0)
    partition = min(code, (1 << 32) - code) % OFFSETS_PARTITIONS
    end = t.run("GetOffsetShell", "--topic-partitions", f"__consumer_offsets:{partition}").strip().rsplit(":", 1)[1]

    def formatted(formatter):
        text, found = t.consumed(end, "--topic", "__consumer_offsets", "--partition", str(partition), "--offset", "earliest",
                                 "--formatter", f"org.apache.kafka.tools.consumer.{formatter}").strip(), []
        while text:
            one, length = json.JSONDecoder().raw_decode(text)
            found, text = [*found, one], text[length:].lstrip()
        return [one for one in found if one["key"]["data"]["group"] == group]

    commits = formatted("OffsetsMessageFormatter")
    expect([(one["key"]["data"]["topic"], one["key"]["data"]["partition"]) for one in commits], [(topic, 0)] * len(commits), "keys of commits")
    expect(commits[-1]["value"]["data"]["offset"], 10, "the last commit")
    groups = [one["value"]["data"] for one in formatted("GroupMetadataMessageFormatter")]
    told = [(one["generation"], one["protocolType"], len(one["members"])) for one in groups]
    expect(told, [(0, "", 0), (1, "consumer", 1), (2, "consumer", 0)], "the group: made, with its member, without")


@suite.case("kafka-producer-perf-test, kafka-consumer-perf-test by both protocols, and the latency test run to their end")
def performance(t):
    topic = t.topic()
    said = t.run("ProducerPerformance", "--topic", topic, "--num-records", "5000", "--record-size", "100", "--throughput", "-1", "--command-property", "acks=all")
    expect(re.findall(r"^(\d+) records sent, .*99\.9th\.$", said, re.MULTILINE)[-1], "5000", "records sent")
    for protocol in ("classic", "consumer"):
        said = t.run("ConsumerPerformance", "--topic", topic, "--num-records", "5000", "--group", fresh("perf"), "--command-property", f"group.protocol={protocol}")
        head, row = (line.split(", ") for line in said.strip().splitlines()[-2:])
        expect(dict(zip(head, row))["data.consumed.in.nMsg"], "5000", f"{protocol}: records read")
    said = t.run("EndToEndLatency", "--topic", topic, "--num-records", "50", "--producer-acks", "all", "--record-size", "100")
    expect(len(re.findall(r"^Percentiles: 50th = \d+, 99th = \d+, 99.9th = \d+$", said, re.MULTILINE)), 1, "percentiles")


@suite.case("kafka-get-offsets, kafka-delete-records, kafka-groups and kafka-broker-api-versions")
def others(t):
    topic = t.topic(1)
    t.sent(topic, 10)
    expect(t.run("GetOffsetShell", "--topic", topic).split(), [f"{topic}:0:10"], "the end")
    wanted = json.dumps({"version": 1, "partitions": [{"topic": topic, "partition": 0, "offset": 4}]})
    said = t.run("DeleteRecordsCommand", "--offset-json-file", "/dev/stdin", given=wanted)
    expect("low_watermark: 4" in said, True, f"records deleted: {said}")
    expect(t.run("GetOffsetShell", "--topic", topic, "--time", "earliest").split(), [f"{topic}:0:4"], "the beginning")
    expect(t.run("GroupsCommand", "--list").split()[:3], ["GROUP", "TYPE", "PROTOCOL"], "kafka-groups")
    expect("ConsumerGroupHeartbeat(68): 0 to 1 [usable: 1]" in t.run("BrokerApiVersionsCommand"), True, "kafka-broker-api-versions")


@suite.case("kafka-configs sets, shows and resets configs of topics, groups and brokers")
def configs(t):
    topic, group = t.topic(1), fresh("tools")

    def own(*entity):
        """What the entity sets itself: {key: value}."""
        said = t.configs("--describe", *entity, complaints=False)
        return dict(re.findall(r"^\s+(\S+)=(\S*) sensitive=false synonyms=\{DYNAMIC_(?:TOPIC|GROUP|BROKER)_CONFIG", said, re.MULTILINE))

    entity = ("--entity-type", "topics", "--entity-name", topic)
    t.configs("--alter", *entity, "--add-config", "retention.ms=3600000,max.message.bytes=2000")
    expect(own(*entity), {"retention.ms": "3600000", "max.message.bytes": "2000"}, "set on a topic")
    t.configs("--alter", *entity, "--delete-config", "max.message.bytes")
    expect(own(*entity), {"retention.ms": "3600000"}, "left on the topic")
    expect("retention.ms=3600000" in t.topics("--describe", "--topic", topic), True, "kafka-topics shows it")
    said = t.configs("--alter", *entity, "--add-config", "retention.ms=soon", status=1)
    expect("InvalidConfigurationException" in said, True, said)
    entity = ("--entity-type", "groups", "--entity-name", group)
    t.configs("--alter", *entity, "--add-config", "consumer.session.timeout.ms=50000")
    expect(own(*entity), {"consumer.session.timeout.ms": "50000"}, "set on a group")
    t.configs("--alter", *entity, "--delete-config", "consumer.session.timeout.ms")
    entity = ("--entity-type", "brokers", "--entity-name", "1")
    t.configs("--alter", *entity, "--add-config", "log.roll.ms=86400000")
    expect(own(*entity).get("log.roll.ms"), "86400000", "set on the broker")
    t.configs("--alter", *entity, "--delete-config", "log.roll.ms")
    said = t.configs("--alter", *entity, "--add-config", "node.id=7", status=1)
    expect("Cannot update these configs dynamically" in said, True, said)


if __name__ == "__main__":
    suite.main(Tools)
