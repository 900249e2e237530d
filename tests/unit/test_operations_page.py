"""docs/operations.md lists every metric and every line of the log, and none that does not exist."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from holdfast.telemetry.families import FAMILIES

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "operations.md"
FOLDERS = ("broker", "cli", "consumer", "dead_letters", "idempotency", "publisher", "telemetry")
LEVELS = {"debug", "info", "warning", "error", "critical", "exception"}
NAME = re.compile(r"[a-z]+\.[a-z_]+")


def the_table(heading: str) -> list[list[str]]:
    """The rows of the first table below a heading."""
    section = PAGE.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = re.search(r"(?:^\|.*\n)+", section, re.MULTILINE)
    assert lines
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[0].splitlines()[2:]]


def names_in_the_code() -> Iterator[str]:
    """What is logged under a name, and what a fact becomes in `telemetry/log.py`."""
    for folder in FOLDERS:
        for file in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                match node:
                    case ast.Call(func=ast.Attribute(attr=level), args=[ast.Constant(value=str(name)), *_]):
                        if level in LEVELS and NAME.fullmatch(name):
                            yield name
                    case ast.Return(value=ast.Tuple(elts=[ast.Constant(value=str(name)), _])):
                        if file.name == "log.py" and NAME.fullmatch(name):
                            yield name


def test_the_page_lists_every_line_of_the_log() -> None:
    told = [row[0].strip("`") for row in the_table("The log")]

    assert sorted(told) == sorted(set(names_in_the_code()))


def test_the_page_lists_every_metric_with_its_labels() -> None:
    assert the_table("Metrics") == metrics_table()


def metrics_table() -> list[list[str]]:
    """What the page has to say of the metrics."""
    return [
        [f"`{f.name}{{{','.join(f.labels)}}}`" if f.labels else f"`{f.name}`", f.kind, f.help.rstrip(".")]
        for f in FAMILIES
    ]
