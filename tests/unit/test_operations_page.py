"""docs/operations.md lists every metric and every line of the log, and none that does not exist."""

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

from builders import facts_with_a_line

from holdfast.telemetry import Fact
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
    """What is logged under a name of our own, and not as a fact."""
    for folder in FOLDERS:
        for file in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                match node:
                    case ast.Call(func=ast.Attribute(attr=level), args=[ast.Constant(value=str(name)), *_]):
                        if level in LEVELS and NAME.fullmatch(name):
                            yield name


def test_the_page_lists_every_fact_that_has_a_line_in_the_words_of_its_docstring() -> None:
    assert the_table("The log") == log_table()


def test_nothing_is_logged_under_a_name_but_facts() -> None:
    assert list(names_in_the_code()) == []


def log_table() -> list[list[str]]:
    """What the page has to say of the log; the level of a settled delivery depends on its outcome."""
    return [
        [
            f"`{kind.log}`",
            kind.level if kind.severity is Fact.severity else "info, warning, error",
            " ".join((inspect.getdoc(kind) or "").split("\n\n")[0].split()).rstrip("."),
        ]
        for kind in facts_with_a_line()
    ]


def test_the_page_lists_every_metric_with_its_labels() -> None:
    assert the_table("Metrics") == metrics_table()


def metrics_table() -> list[list[str]]:
    """What the page has to say of the metrics."""
    return [
        [f"`{f.name}{{{','.join(f.labels)}}}`" if f.labels else f"`{f.name}`", f.kind, f.help.rstrip(".")]
        for f in FAMILIES
    ]
