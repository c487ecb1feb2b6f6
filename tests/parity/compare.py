"""Answers made comparable, and what differs between two brokers' answers to one scenario.

`normal.toml` says what is masked by nature in every scenario: a path is `Api.Field.0.Field`, and `*` stands for anything.
"""

import fnmatch
import json
import re
import time
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent
NOW_MS = 3_600_000
UUID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
RULES = tomllib.loads((HERE / "normal.toml").read_text(encoding="utf-8"))


def normal(answers, symbols, numbers):
    """The answers without what differs by nature: variables in the place of names and ids, masks, sorted lists."""
    return [_normal(answer, "", symbols, numbers, time.time() * 1000) for answer in answers]


def _normal(value, path, symbols, numbers, now):
    if isinstance(value, dict):
        inner = {key: _normal(one, f"{path}.{key}" if path else key, symbols, numbers, now) for key, one in value.items()}
        return {key: one for key, one in inner.items() if one is not DROPPED}
    if isinstance(value, list):
        inner = [_normal(one, f"{path}.{index}", symbols, numbers, now) for index, one in enumerate(value)]
        key = _rule("sorted", path)
        return sorted(inner, key=lambda one: json.dumps(one.get(key) if key else one)) if key is not None else inner
    kind = _rule("masked", path)
    if kind is not None:
        return MASKS[kind](value, numbers)
    if isinstance(value, str):
        for text, name in symbols:
            value = value.replace(text, name)
        return re.sub(UUID, "<uuid>", value)
    elif isinstance(value, int) and not isinstance(value, bool) and abs(value - now) < NOW_MS:
        return "now"
    return value


def _rule(section, path):
    for glob, rule in RULES[section].items():
        if fnmatch.fnmatchcase(path, glob):
            return rule
    return None


def shape(value, without, common, path=""):
    """The answer without the paths of `without`; a list in `common` becomes one whose elements are found by that key, and of
    which only those are compared that both brokers have."""
    if any(fnmatch.fnmatchcase(path, glob) for glob in without):
        return DROPPED
    if isinstance(value, dict):
        inner = {key: shape(one, without, common, f"{path}.{key}" if path else key) for key, one in value.items()}
        return {key: one for key, one in inner.items() if one is not DROPPED}
    if isinstance(value, list):
        inner = [shape(one, without, common, f"{path}.{index}") for index, one in enumerate(value)]
        key = next((key for glob, key in common.items() if fnmatch.fnmatchcase(path, glob)), None)
        return {COMMON: {str(one[key]): one for one in inner}} if key else inner
    return value


DROPPED = object()
COMMON = "in common"
MASKS = {
    # Not compared at all.
    "dropped": lambda value, numbers: DROPPED,
    # Whether there is any text.
    "text": lambda value, numbers: None if value is None else "text" if value else "",
    # A number that the broker made up: its variable if the scenario bound it.
    "id": lambda value, numbers: numbers.get(value, "id" if value > 0 else value),
    # Always there, whatever it is.
    "any": lambda value, numbers: "any",
}


def differences(kafka, ours, path=""):
    """(path, Kafka's, ours) of every leaf that differs. Lists of different lengths differ also in their `count`."""
    if isinstance(kafka, dict) and isinstance(ours, dict):
        for key in [key for key in kafka if key in ours] if path.endswith(COMMON) else {**kafka, **ours}:
            yield from differences(kafka.get(key), ours.get(key), f"{path}.{key}" if path else key)
    elif isinstance(kafka, list) and isinstance(ours, list):
        if len(kafka) != len(ours):
            yield f"{path}.count", len(kafka), len(ours)
        for index, (one, other) in enumerate(zip(kafka, ours)):
            yield from differences(one, other, f"{path}.{index}")
    elif kafka != ours or isinstance(kafka, bool) != isinstance(ours, bool):
        yield path, kafka, ours


def by_step(kafka, ours):
    """The differences of two lists of answers; steps count from 1, as in `at`."""
    if len(kafka) != len(ours):
        yield "count", len(kafka), len(ours)
    for step, (one, other) in enumerate(zip(kafka, ours), 1):
        for path, was, got in differences(one, other):
            yield f"{step}.{path}", was, got


def declared(differs, path, kafka, ours, version):
    """The index of the declaration that this difference is one of, or None."""
    for index, one in enumerate(differs):
        if (fnmatch.fnmatchcase(path, one["at"]) and one.get("kafka", kafka) == kafka and one.get("ours", ours) == ours
                and version in one.get("versions", [version])):
            return index
    return None
