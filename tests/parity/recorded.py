"""Kafka's answers as they are committed: recorded/FILE.json beside scenarios/FILE.toml, an answer a line.

Versions of a scenario that were answered alike stand together: {"name": {"0 4 8": [answer, ...]}}. conditions.json says
under which version and settings of Kafka they were recorded, and which versions of each API it serves.
"""

import json
import tomllib
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "recorded"
BROKERS = Path(__file__).resolve().parent / "brokers.toml"


def read():
    """{(file, name): {version: answers}} and the conditions."""
    out, conditions = {}, {}
    for path in FOLDER.glob("*.json"):
        data = json.loads(path.read_text(encoding="utf-8"))
        if path.name == "conditions.json":
            conditions = data
            continue
        for name, plays in data.items():
            out[path.stem, name] = {_version(version): answers for versions, answers in plays.items() for version in versions.split()}
    return out, conditions


def write(answers, scenarios, served):
    """Takes the new answers up, and drops those of scenarios and versions that are no more."""
    kept, _ = read()
    kept.update(answers)
    FOLDER.mkdir(exist_ok=True)
    for file in {path.stem for path in FOLDER.glob("*.json")} - {one.file for one in scenarios}:
        (FOLDER / f"{file}.json").unlink()
    for file in sorted({one.file for one in scenarios}):
        here = [one for one in scenarios if one.file == file and (file, one.name) in kept]
        parts = [f"{json.dumps(one.name)}: {_plays(kept[file, one.name], one.versions)}" for one in here]
        (FOLDER / f"{file}.json").write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8")
    conditions = {**tomllib.loads(BROKERS.read_text(encoding="utf-8")), "served": served}
    (FOLDER / "conditions.json").write_text(json.dumps(conditions, indent=1) + "\n", encoding="utf-8")


def _plays(plays, versions):
    alike = {}
    for version in versions:
        if version in plays:
            alike.setdefault(json.dumps(plays[version]), []).append("any" if version is None else str(version))
    parts = [f'  "{" ".join(names)}": [\n' + ",\n".join(f"    {json.dumps(answer)}" for answer in json.loads(text)) + "\n  ]" for text, names in alike.items()]
    return "{\n" + ",\n".join(parts) + "\n}"


def _version(text):
    return None if text == "any" else int(text)
