"""docs/compatibility.md from what is served, the scenarios and their declared differences; compatibility.md here is its head.

Also checks that every API that is served has scenarios, in its oldest and in its newest version.
"""

from pathlib import Path

import schema

HERE = Path(__file__).resolve().parent
HEAD = HERE / "compatibility.md"
DOCUMENT = HERE.parent.parent / "docs/compatibility.md"


def check(scenarios, served, conditions, outcome, write):
    """Fails the run where an API lacks scenarios, and where the document is not what this run shows, unless `write`."""
    for name, (first, last) in served.items():
        played = {version for one in scenarios if one.api == name for version in one.versions}
        missing = {max(first, oldest(name)), last} - played
        if missing:
            outcome.fail(f"{name} has no scenario in version {' and '.join(map(str, sorted(missing)))}")
    text = document(scenarios, served, conditions)
    if write:
        DOCUMENT.write_text(text, encoding="utf-8")
    elif DOCUMENT.read_text(encoding="utf-8") != text:
        outcome.fail("docs/compatibility.md is not what this run shows: tests/parity/run --docs writes it")
    else:
        outcome.passed += 1


def oldest(name):
    """Kafka advertises Produce from 0, but answers from 3 on."""
    return schema.MESSAGES[f"{name}Request"].versions[0]


def document(scenarios, served, conditions):
    plays = sum(len(one.versions) for one in scenarios)
    lines = [HEAD.read_text(encoding="utf-8").rstrip(), "", "## APIs", "",
             f"From `tests/parity/run`: {len(scenarios)} scenarios, {plays} plays in the versions that matter, every field of every answer compared with",
             f"what Kafka {conditions['kafka']['version']} answered. \"Meant\" and \"open\" count declared differences, told below; an open one is a defect.", "",
             "| key | API | here | Kafka | scenarios | plays | meant | open |", "|---|---|---|---|---|---|---|---|"]
    for key, name in sorted(schema.KEYS.items()):
        if name in served:
            about = [one for one in scenarios if one.api == name]
            differs = [one for scenario in about for one in scenario.differs]
            meant = sum("meant" in one for one in differs)
            lines.append(f"| {key} | {name} | {span(served[name])} | {span(conditions['served'].get(name))} | {len(about)} "
                         f"| {sum(len(one.versions) for one in about)} | {meant or ''} | {len(differs) - meant or ''} |")
    absent = [f"{name} ({key})" for key, name in sorted(schema.KEYS.items()) if name in conditions["served"] and name not in served]
    lines += ["", f"Not served, of what Kafka tells its clients: {', '.join(absent)}."]
    for title, kind in (("Open defects", "defect"), ("Meant differences", "meant")):
        lines += section(title, kind, scenarios)
    return "\n".join(lines) + "\n"


def span(versions):
    return "-" if versions is None else f"{versions[0]}-{versions[1]}" if versions[0] != versions[1] else str(versions[0])


def section(title, kind, scenarios):
    """The declared differences of one kind, those with the same reason together."""
    told = {}
    for one in scenarios:
        for differs in one.differs:
            if kind in differs:
                names = told.setdefault(differs[kind], [])
                if str(one) not in names:
                    names.append(str(one))
    lines = [f"- {reason} ({'; '.join(names)})" for reason, names in told.items()]
    return ["", f"## {title}", "", *(lines or ["None."])]
