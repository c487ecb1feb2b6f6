"""Scenarios: read from TOML, and played against a broker. README.md beside this file says how one is written.

Every play has names of its own for topics and groups (they begin with `$p`), so that scenarios run in any order, side by
side and again on one broker. What it gives back is a list of answers in which those names, and the ids that the broker
made up, are replaced by the variables that they came from: two brokers can then be compared.
"""

import hashlib
import json
import re
import socket
import struct
import time
import tomllib
from pathlib import Path

import compare
import schema

HERE = Path(__file__).resolve().parent
ANSWER_SECONDS_MAX = 20
USUAL = "usual"
UNTIL_SECONDS_MAX = 20
SLOW_SECONDS_MAX = 100
UNTIL_PAUSE_S = 0.01
DIRECTIVES = {"ask", "on", "bind", "until", "later", "take", "silent", "client", "says", "cut", "more", "hex", "size", "mine", "without", "common", "closes"}
SCENARIO = {"name", "versions", "topics", "steps", "differs", "let", "slow"}


class Wrong(Exception):
    """A scenario that is not well formed, or a broker that did not get as far as to be compared."""


class Closed(Exception):
    """The broker closed the connection."""


class Scenario:
    """One entry of a file; `file` is its name without the ending, `api` what the file is about and `brokers` whom it is played to."""

    def __init__(self, data, file, api, requests, brokers=USUAL):
        unknown = set(data) - SCENARIO
        if unknown:
            raise Wrong(f"{file}: a scenario has no {', '.join(sorted(unknown))}")
        self.name, self.file, self.api, self.requests, self.brokers = data["name"], file, api, requests, brokers
        self.versions = data.get("versions", [None])
        self.topics, self.steps = data.get("topics", {}), data["steps"]
        self.differs, self.let = data.get("differs", []), data.get("let", {})
        self.slow = data.get("slow", False)

    def __str__(self):
        return f"{self.file}: {self.name}"


def load(folder=HERE / "scenarios"):
    """The requests that all files share, and every scenario."""
    shared = _toml(folder / "requests.toml")
    out = []
    for path in sorted(folder.glob("[0-9]*.toml")):
        data = _toml(path)
        requests = {**shared, **data.get("requests", {})}
        found = [Scenario(one, path.stem, data["api"], requests, data.get("brokers", USUAL)) for one in data["scenario"]]
        names = [one.name for one in found]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise Wrong(f"{path.name}: the name of two scenarios: {', '.join(twice)}")
        out += found
    return shared, out


def _toml(path):
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise Wrong(f"{path.name}: {error}") from error


class Connection:
    # What was asked and not taken yet: API, version, correlation id.
    due = ()

    def __init__(self, address):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS_MAX)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.correlation, self.due = 0, []

    def send(self, data, size=None):
        """`size` is the length that the frame claims to have."""
        try:
            self.socket.sendall(struct.pack(">i", len(data) if size is None else size) + data)
        except (ConnectionResetError, BrokenPipeError) as error:
            raise Closed from error

    def receive(self):
        return self._exactly(struct.unpack(">i", self._exactly(4))[0])

    def _exactly(self, count):
        out = bytearray()
        while len(out) < count:
            try:
                more = self.socket.recv(count - len(out))
            except ConnectionResetError as error:
                raise Closed from error
            except TimeoutError as error:
                raise Wrong(f"no answer within {ANSWER_SECONDS_MAX} s") from error
            if not more:
                raise Closed
            out += more
        return bytes(out)

    def close(self):
        self.socket.close()


class Play:
    """One scenario in one version against one broker."""

    def __init__(self, scenario, version, address, usual, run):
        self.scenario, self.version, self.address, self.usual = scenario, version, address, usual
        digest = hashlib.sha256(str(scenario).encode()).hexdigest()[:6]
        prefix = f"p{digest}{version or 0:02}{run}"
        self.values = {"p": prefix, "g": f"{prefix}-g", "null": None, **{name: f"{prefix}-{name}" for name in scenario.topics}}
        self.values.update(self.resolve(scenario.let))
        self.ids, self.connections, self.answers = schema.Ids(), {}, []
        self.until_seconds_max = SLOW_SECONDS_MAX if scenario.slow else UNTIL_SECONDS_MAX

    def run(self):
        """The answers, one per step that has one: {"Api": fields}."""
        try:
            for name, wanted in self.scenario.topics.items():
                self.create(name, wanted if isinstance(wanted, dict) else {"partitions": wanted})
            if any("ConsumerGroupHeartbeat" in self.scenario.requests.get(step.get("ask"), step).get("ask", "") for step in self.scenario.steps):
                for name in self.scenario.topics:
                    self.assigned(name)
            for index, step in enumerate(self.scenario.steps, 1):
                try:
                    self.step(dict(step))
                except (Wrong, ValueError, KeyError, TypeError, struct.error, TimeoutError) as error:
                    raise Wrong(f"step {index}: {type(error).__name__} {error}") from error
            return self.answers
        finally:
            for connection in self.connections.values():
                connection.close()

    def create(self, name, wanted):
        """A topic, and the wait until the broker tells of it: Kafka answers before its brokers know."""
        topic = self.values[name]
        configs = [{"Name": key, "Value": value} for key, value in wanted.get("configs", {}).items()]
        body = {"Topics": [{"Name": topic, "NumPartitions": wanted.get("partitions", 1), "ReplicationFactor": 1, "Configs": configs}], "TimeoutMs": 10_000}
        got = self.exchange("CreateTopics", 5, body)["Topics"][0]
        if got["ErrorCode"] != "NONE":
            raise Wrong(f"the topic {name} was not made: {got}")
        deadline = time.monotonic() + UNTIL_SECONDS_MAX
        while True:
            got = self.exchange("Metadata", 12, {"Topics": [{"Name": topic}], "AllowAutoTopicCreation": False})["Topics"][0]
            errors = {got["ErrorCode"], *(part["ErrorCode"] for part in got["Partitions"])}
            if errors == {"NONE"} and len(got["Partitions"]) == wanted.get("partitions", 1) and self.leads(topic, len(got["Partitions"])):
                self.ids[topic] = self.values[f"{name}.id"] = got["TopicId"]
                return
            if time.monotonic() > deadline:
                raise Wrong(f"the topic {name} did not come: {got}")
            time.sleep(UNTIL_PAUSE_S)

    def assigned(self, name):
        """Waits until the group coordinator knows the topic too: Kafka's learns of it on its own time."""
        group = f"ready-{self.values[name]}"
        body = {"GroupId": group, "MemberId": "m", "RebalanceTimeoutMs": 30_000, "SubscribedTopicNames": [self.values[name]], "TopicPartitions": []}
        deadline = time.monotonic() + UNTIL_SECONDS_MAX
        while not (self.exchange("ConsumerGroupHeartbeat", 1, body)["Assignment"] or {}).get("TopicPartitions"):
            if time.monotonic() > deadline:
                raise Wrong(f"the group coordinator does not learn of {name}")
            time.sleep(UNTIL_PAUSE_S)
        self.exchange("ConsumerGroupHeartbeat", 1, {**body, "MemberEpoch": -1})
        self.exchange("DeleteGroups", 2, {"GroupsNames": [group]})

    def leads(self, topic, count):
        """Whether the broker knows itself that it leads all partitions."""
        asked = [{"PartitionIndex": index, "Timestamp": -1} for index in range(count)]
        got = self.exchange("ListOffsets", 4, {"ReplicaId": -1, "Topics": [{"Name": topic, "Partitions": asked}]})
        return all(part["ErrorCode"] == "NONE" for part in got["Topics"][0]["Partitions"])

    def step(self, step):
        if "take" in step:
            return self.take(step)
        ask, template = step["ask"], {}
        if ask in self.scenario.requests:
            template = dict(self.scenario.requests[ask])
            ask = template.pop("ask")
        given = {key: value for key, value in step.items() if key not in DIRECTIVES and key[0].islower()}
        declared = template.pop("with", {})
        unknown = set(given) - set(declared)
        if unknown:
            raise Wrong(f"{step['ask']} takes no {', '.join(sorted(unknown))}")
        local = {**self.values, **self.resolve({**declared, **given})}
        fields = {**template, **{key: value for key, value in step.items() if key not in DIRECTIVES and key not in given}}
        name, _, version = str(ask).partition(" ")
        version = int(version) if version else self.version if name == self.scenario.api and self.version is not None else self.usual[name]
        self.play(name, version, self.resolve(fields, local), step)
        return None

    def play(self, name, version, fields, step):
        if self.connections.get(step.get("on", "main"), Connection).due and not step.get("later"):
            raise Wrong("an answer is due on that connection: take it first")
        until = self.resolve(step.get("until", {}))
        deadline = time.monotonic() + self.until_seconds_max
        while True:
            on = step.get("on", "main")
            try:
                self.send(on, name, version, fields, step)
                if step.get("silent") or step.get("later"):
                    return
                got = self.receive(on)
            except Closed:
                self.connections.pop(on).close()
                got = "closed"
            if all(self.reads(got, path) == value for path, value in until.items()):
                break
            if time.monotonic() > deadline:
                raise Wrong(f"not within {self.until_seconds_max} s: {until}; the last answer: {got}")
            time.sleep(UNTIL_PAUSE_S)
        self.keep(name, got, step)

    def send(self, on, name, version, fields, step):
        connection = self.connections.get(on)
        if connection is None:
            connection = self.connections[on] = Connection(self.address)
        connection.correlation += 1
        if "hex" in step:
            data = bytes.fromhex(step["hex"])
        else:
            body = schema.MESSAGES[f"{name}Request"].encode(fields, version, self.ids)
            body = body[:len(body) - step.get("cut", 0)] + bytes.fromhex(step.get("more", ""))
            data = schema.request(name, version, connection.correlation, self.resolve(step.get("client", "parity")), body, step.get("says"))
        connection.send(data, step.get("size"))
        if not step.get("silent"):
            says = step.get("says", version) if name == "ApiVersions" else version
            connection.due.append((name, says, int.from_bytes(data[4:8])))

    def receive(self, on):
        connection = self.connections[on]
        name, version, correlation = connection.due.pop(0)
        data = connection.receive()
        got, fields = schema.answer(name, version, data)
        if got != correlation:
            raise Wrong(f"answer {got} where {correlation} was due")
        return fields

    def take(self, step):
        """The answer to what was asked with `later` on that connection."""
        on = step["take"]
        name = self.connections[on].due[0][0]
        try:
            got = self.receive(on)
        except Closed:
            self.connections.pop(on).close()
            got = "closed"
        self.keep(name, got, step)

    def exchange(self, name, version, fields):
        self.send("main", name, version, fields, {})
        return self.receive("main")

    def keep(self, name, got, step):
        if (got == "closed") != step.get("closes", False):
            raise Wrong("the connection was closed" if got == "closed" else f"the connection was not closed: {got}")
        for variable, path in step.get("bind", {}).items():
            self.values[variable] = self.reads(got, path)
        if "mine" in step and got != "closed":
            got[step["mine"]] = [one for one in got[step["mine"]] if self.values["p"] in json.dumps(one)]
        self.answers.append({name: compare.shape(got, step.get("without", []), step.get("common", {}))})

    def reads(self, got, path):
        for part in path.split("."):
            if not isinstance(got, (dict, list)):
                return None
            try:
                got = got[int(part)] if isinstance(got, list) else got[part]
            except (IndexError, KeyError):
                return None
        return got

    def resolve(self, value, values=None):
        """The value with its variables: "$name" is one as it is, within longer text its text."""
        values = self.values if values is None else values
        if isinstance(value, dict):
            return {key: self.resolve(one, values) for key, one in value.items()}
        if isinstance(value, list):
            return [self.resolve(one, values) for one in value]
        if not isinstance(value, str) or "$" not in value:
            return value
        whole = re.fullmatch(r"\$([a-z][\w.]*)", value)
        if whole and whole[1] in values:
            return values[whole[1]]

        def text(found):
            name = found[1]
            while name not in values and "." in name:
                name = name.rpartition(".")[0]
            if name not in values:
                raise Wrong(f"nothing is called ${found[1]}")
            return str(values[name]) + found[1][len(name):]

        return re.sub(r"\$\{?([a-z]\w*(?:\.\w+)*)\}?", text, value)

    def symbols(self):
        """What stands for a variable in answers: names and ids, longest first."""
        named = {value: f"${name}" for name, value in self.values.items() if isinstance(value, str) and len(value) > 8}
        ids = {topic_id: f"{named.get(name, name.replace(self.values['p'], '$p'))}.id" for name, topic_id in self.ids.items()}
        named.update(ids)
        return sorted(named.items(), key=lambda pair: -len(pair[0]))

    def numbers(self):
        return {value: f"${name}" for name, value in self.values.items() if isinstance(value, int) and not isinstance(value, bool)}
