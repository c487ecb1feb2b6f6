"""Requests and answers by the names of their fields, for every API and version that Kafka 4.3 has.

Driven by Kafka's own message tables (tests/golden/messages.tsv), not by net/schema: a fault in ours would not show if both
sides shared it. A message is a dict of its fields; a field that a request leaves out has its default, one that the version
does not have is not written. Bytes are text in Latin-1, so that they can stand in TOML and JSON; an error code is its name.
"""

import csv
import hashlib
import re
import struct
import uuid
from pathlib import Path

import records

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
NUMBERS = {"int8": ">b", "int16": ">h", "uint16": ">H", "int32": ">i", "int64": ">q", "float64": ">d", "bool": ">?"}
PLAIN = {*NUMBERS, "uuid", "string", "bytes", "records"}
FOREVER = 1 << 15


def table(name):
    with open(GOLDEN / name, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


ERRORS = {int(row["code"]): row["name"] for row in table("errors.tsv")}
CODES = {name: code for code, name in ERRORS.items()}
APIS = {row["name"]: row for row in table("api-versions.tsv")}
KEYS = {int(row["api_key"]): name for name, row in APIS.items()}


def versions(text):
    """The versions that "3-7", "9+", "none" or "" name."""
    if text in ("", "none"):
        return range(0)
    first, _, last = text.rstrip("+").partition("-")
    return range(int(first), FOREVER if text.endswith("+") else int(last or first) + 1)


class Field:
    def __init__(self, row):
        # Kafka writes a few of them with a small letter; scenarios tell fields from parameters by the capital.
        name = row["field"].rsplit(".", 1)[-1].removesuffix("[]")
        self.name = name[0].upper() + name[1:]
        self.array = row["type"].startswith("[]")
        self.type = row["type"].removeprefix("[]")
        self.versions, self.nullable = versions(row["field_versions"]), versions(row["nullable_versions"])
        self.tag, self.tagged = int(row["tag"] or -1), versions(row["tagged_versions"])
        self.default = self._default(row["default"].strip('"'))
        self.fields = []

    def _default(self, text):
        if text == "null":
            return None
        if self.array:
            return []
        if self.type in ("string", "bytes", "records"):
            return text
        if self.type == "uuid":
            return 0
        if self.type == "bool":
            return text == "true"
        if self.type == "float64":
            return float(text or 0)
        return int(text or "0", 0) if self.type in NUMBERS else {}


class Message:
    def __init__(self, rows):
        self.versions, self.flexible = versions(rows[0]["versions"]), versions(rows[0]["flexible_versions"])
        self.fields, by_path = [], {}
        for row in rows:
            if not row["field"]:
                continue
            field = by_path[row["field"]] = Field(row)
            parent = row["field"].rpartition(".")[0]
            (by_path[parent].fields if parent else self.fields).append(field)

    def encode(self, value, version, ids=None):
        """`ids` gives the id of a topic where its name stands in a field for an id."""
        return Writer(version, version in self.flexible, ids).structure(self.fields, value)

    def decode(self, data, version):
        reader = Reader(data, version, version in self.flexible)
        value = reader.structure(self.fields)
        if reader.at != len(data):
            raise ValueError(f"{len(data) - reader.at} bytes follow the message")
        return value


def _messages():
    rows = {}
    for row in table("messages.tsv"):
        rows.setdefault(row["message"], []).append(row)
    return {name: Message(fields) for name, fields in rows.items()}


MESSAGES = _messages()


def uvarint(number):
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes(out) + bytes([number])


class Ids(dict):
    """The ids of topics by name; one that is not there has an id too, which no broker knows."""

    def __missing__(self, name):
        self[name] = str(uuid.UUID(bytes=hashlib.md5(name.encode()).digest()))
        return self[name]


class Writer:
    def __init__(self, version, flexible, ids):
        self.version, self.flexible, self.ids = version, flexible, Ids() if ids is None else ids

    def structure(self, fields, value):
        unknown = set(value) - {field.name for field in fields}
        if unknown:
            raise ValueError(f"no field {', '.join(sorted(unknown))} beside {', '.join(field.name for field in fields)}")
        out, tags = b"", []
        for field in fields:
            if self.version not in field.versions:
                continue
            given = value.get(field.name, field.default)
            if self.flexible and self.version in field.tagged:
                if given not in (field.default, absent(field)):
                    tags.append((field.tag, self.field(field, given)))
            else:
                out += self.field(field, given)
        if self.flexible:
            tags.sort()
            out += uvarint(len(tags)) + b"".join(uvarint(tag) + uvarint(len(data)) + data for tag, data in tags)
        return out

    def field(self, field, value):
        if not field.array:
            return self.one(field, value)
        if value is None:
            return self.length(None, ">i")
        return self.length(len(value), ">i") + b"".join(self.one(field, element) for element in value)

    def length(self, count, form):
        if self.flexible:
            return uvarint(0 if count is None else count + 1)
        return struct.pack(form, -1 if count is None else count)

    def one(self, field, value):
        kind = field.type
        if kind in NUMBERS:
            return struct.pack(NUMBERS[kind], CODES.get(value, value))
        if kind == "uuid":
            return self.uuid(value)
        if kind not in PLAIN:
            marker = b"" if self.version not in field.nullable or field.array else struct.pack(">b", -1 if value is None else 1)
            return marker if value is None else marker + self.structure(field.fields, value)
        if value is None:
            return self.length(None, ">h" if kind == "string" else ">i")
        data = value.encode() if kind == "string" else records.encode(value) if kind == "records" else contents(value)
        return self.length(len(data), ">h" if kind == "string" else ">i") + data

    def uuid(self, value):
        if value in (0, ""):
            return bytes(16)
        try:
            return uuid.UUID(value).bytes
        except ValueError:
            return uuid.UUID(self.ids[value]).bytes


def contents(value):
    """What goes into a field of bytes: text, or one of the structures that consumers put there."""
    if isinstance(value, str):
        return value.encode("latin-1")
    version = value.get("version", 0)
    name = "ConsumerProtocolSubscription" if "Topics" in value else "ConsumerProtocolAssignment"
    fields = {key: given for key, given in value.items() if key != "version"}
    return struct.pack(">h", version) + MESSAGES[name].encode(fields, version)


class Reader:
    def __init__(self, data, version, flexible):
        self.data, self.at, self.version, self.flexible = data, 0, version, flexible

    def take(self, count):
        if count < 0 or self.at + count > len(self.data):
            raise ValueError(f"{count} bytes wanted at {self.at} of {len(self.data)}")
        self.at += count
        return self.data[self.at - count:self.at]

    def number(self, form):
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def uvarint(self):
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    def structure(self, fields):
        here = [field for field in fields if self.version in field.versions]
        tagged = {field.tag: field for field in here if self.flexible and self.version in field.tagged}
        value = {field.name: absent(field) if field in tagged.values() else self.field(field) for field in here}
        for _ in range(self.uvarint() if self.flexible else 0):
            tag, size = self.uvarint(), self.uvarint()
            end = self.at + size
            if tag in tagged:
                value[tagged[tag].name] = self.field(tagged[tag])
            else:
                value[f"tag {tag}"] = self.take(size).decode("latin-1")
            if self.at != end:
                raise ValueError(f"tag {tag} has not the length that it says")
        return value

    def field(self, field):
        if not field.array:
            return self.one(field)
        count = self.length(">i")
        return None if count is None else [self.one(field) for _ in range(count)]

    def length(self, form):
        count = self.uvarint() - 1 if self.flexible else self.number(form)
        return None if count < 0 else count

    def one(self, field):
        kind = field.type
        if kind in NUMBERS:
            value = self.number(NUMBERS[kind])
            return ERRORS.get(value, value) if kind == "int16" and field.name.endswith("ErrorCode") else value
        if kind == "uuid":
            value = self.take(16)
            return str(uuid.UUID(bytes=value)) if any(value) else 0
        if kind not in PLAIN:
            if self.version in field.nullable and not field.array and self.number(">b") < 0:
                return None
            return self.structure(field.fields)
        size = self.length(">h" if kind == "string" else ">i")
        if size is None:
            return None
        data = self.take(size)
        return data.decode() if kind == "string" else records.decode(data) if kind == "records" else data.decode("latin-1")


def absent(field):
    """What a tagged field has that was not sent."""
    if field.type in PLAIN or field.array or field.default is None:
        return field.default
    return {inner.name: absent(inner) for inner in field.fields}


def request(name, version, correlation, client, body, said=None):
    """A request's frame, without its length. `said` is the version that the header says where it lies."""
    said = version if said is None else said
    flexible_from = int(APIS[name]["request_header_flexible_from"])
    flexible = 0 <= flexible_from <= said
    text = struct.pack(">h", -1) if client is None else struct.pack(">h", len(client.encode())) + client.encode()
    return struct.pack(">hhi", int(APIS[name]["api_key"]), said, correlation) + text + (b"\0" if flexible else b"") + body


def answer(name, version, data):
    """(correlation id, fields) of an answer's frame. ApiVersions' header is never flexible, and its body may be version 0."""
    correlation = struct.unpack(">i", data[:4])[0]
    message = MESSAGES[f"{name}Response"]
    body = data[5:] if name != "ApiVersions" and version in message.flexible else data[4:]
    if name == "ApiVersions" and body[:2] == struct.pack(">h", 35):
        version = 0
    return correlation, message.decode(body, version)
