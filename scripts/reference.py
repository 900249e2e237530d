"""Writes the parts of the reference that come from the code: settings and commands, and the list of decisions.

python scripts/reference.py docs
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from pydantic import SecretStr

from holdfast import Settings
from holdfast.cli.app import app
from holdfast.config import known_variables

GROUPS = {
    "broker": "RabbitMQ",
    "idempotency": "Claims in Redis",
    "worker": "Worker",
    "publisher": "Publisher",
    "sql": "Your own database",
    "log": "Log",
    "http": "Metrics and probes",
    "dead_letters": "Dead-letter tools",
    "dashboard": "Dead-letter page",
}
"""The groups with a heading of their own; any other has its name for one."""

DECISIONS = Path(__file__).parents[1] / "docs" / "decisions"


def settings() -> Iterator[str]:
    """A table for each group: first the URL, then the group's own fields, then those for secrets in files and TLS."""
    for name, outer in Settings.model_fields.items():
        kind: Any = outer.annotation
        own = vars(kind).get("__annotations__", {})
        fields = sorted(kind.model_fields.items(), key=lambda item: (item[0] != "url", item[0] not in own))
        yield f"## {GROUPS.get(name, name.capitalize())}\n"
        yield "| variable | default | what it is |\n|---|---|---|"
        for field, _ in fields:
            variable = f"HOLDFAST_{name.upper()}__{field.upper()}"
            about = known_variables()[variable]
            yield f"| `{variable}` | {default(about.default)} | {about.description} |"
        yield ""


def default(value: Any) -> str:
    """The default as it is written into a variable; most settings without one are off."""
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if value is None or value == "":
        return "not set"
    if isinstance(value, str):
        return f"`{value}`"
    return f"`{json.dumps(int(value) if isinstance(value, float) and value.is_integer() else value)}`"


def commands() -> Iterator[str]:
    """Each command: its usage, what it does, its arguments and options, and examples."""
    for path, command in leaves(typer.main.get_command(app)):
        name = " ".join(("holdfast", *path))
        context = command.make_context(name, [], resilient_parsing=True)
        usage = " ".join(command.collect_usage_pieces(context))
        yield f"## {name}\n\n```text\n{name} {usage}\n```\n"
        yield paragraphs(command.help) + "\n"
        rows = [row for param in command.get_params(context) if (row := param.get_help_record(context))]
        rows = [row for row in rows if "--help" not in row[0]]
        if rows:
            yield "| argument or option | |\n|---|---|"
            yield from (f"| `{cell(left)}` | {cell(right)} |" for left, right in rows)
            yield ""
        if command.epilog:
            examples = re.sub(r"^\W*Examples?:\n", "", command.epilog).splitlines()
            yield "\n".join(("```text", *(line.strip() for line in examples), "```\n"))


def leaves(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command of the tree that does something."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from leaves(command, (*path, name))
        else:
            yield (*path, name), command


def paragraphs(help_text: str | None) -> str:
    """The help text as Markdown: without the mark of what must not be wrapped, angle brackets kept."""
    return re.sub(r"[ \t]+\n", "\n", (help_text or "").replace("\b\n", "")).strip()


def cell(text: str) -> str:
    """The text on one line of a table."""
    return re.sub(r"\s+", " ", text.replace("\b", "")).replace("|", "\\|").strip()


def decisions() -> Iterator[str]:
    """Each decision with its date and state, which its second paragraph begins with."""
    yield "| | decision | date | state |\n|--:|---|---|---|"
    for file in sorted(DECISIONS.glob("[0-9]*.md")):
        title, about = file.read_text().split("\n\n")[:2]
        number, name = re.match(r"# (\d+)\. (.+)", title).groups()  # type: ignore[union-attr]
        date, state = re.match(r"\*(\d{4}-\d\d-\d\d), ([\w ]+)\.", about).groups()  # type: ignore[union-attr]
        yield f"| {number} | [{name}]({file.name}) | {date} | {state} |"


PARTS = {"settings.md": settings, "command-line.md": commands, "decisions/README.md": decisions}


def written(page: str, lines: Iterator[str]) -> str:
    """The page with these lines between its two marks."""
    body = "\n".join(lines).rstrip()
    return re.sub(
        "(<!-- generated -->\n).*(<!-- /generated -->\n)", lambda m: f"{m[1]}\n{body}\n\n{m[2]}", page, flags=re.DOTALL
    )


if __name__ == "__main__":
    for name, part in PARTS.items():
        file = Path(sys.argv[1]) / name
        file.write_text(written(file.read_text(), part()))
