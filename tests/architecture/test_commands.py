"""Every command and every flag is run by a test, or by a page of the documentation that a test runs."""

import ast
from collections.abc import Iterator, Mapping, Set
from pathlib import Path
from typing import Any

import pytest
import typer
from pages import pages, steps

from holdfast.cli.app import app

TESTS = Path(__file__).parents[1]
RUNNERS = {"holdfast", "Running", "dead", "events", "keys", "sagas", "shop", "subprocess"}
"""What a test runs commands with: the helpers of tests/support/commands.py, or what a module makes of them."""

Words = frozenset[str]


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], list[tuple[str, ...]]]]:
    """Each command of the tree that does something, with its flags, each by all its names."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            flags = [(*p.opts, *p.secondary_opts) for p in command.params if p.param_type_name == "option"]
            yield (*path, name), [names for names in flags if "--help" not in names]


def runs() -> list[Words]:
    """The words of each place that runs a command: a line of a page, or a function of a test that uses a runner."""
    lines = [Words(step.text.split()) for page in pages() for step in steps(page) if step.name is None]
    trees = [ast.parse(file.read_text()) for file in TESTS.glob("**/*.py") if file.parent.name != "architecture"]
    functions = [
        words_of(node)
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    return [*lines, *(words for words in functions if words & RUNNERS)]


def words_of(function: ast.AST) -> Words:
    """Every string and every name in a function, its parameters and decorators included."""
    found = set[str]()
    for node in ast.walk(function):
        match node:
            case ast.Constant(value=str(text)):
                found |= set(text.split())
            case ast.Name(id=name) | ast.arg(arg=name):
                found.add(name)
    return Words(found)


def never_run(tree: Mapping[tuple[str, ...], list[tuple[str, ...]]], places: list[Words]) -> Iterator[str]:
    for path, flags in tree.items():
        ours = [words for words in places if words >= set(path)]
        if not ours:
            yield " ".join(path)
        yield from (f"{' '.join(path)} {names[0]}" for names in flags if not any(words & set(names) for words in ours))


def test_every_command_and_flag_is_run() -> None:
    tree = dict(commands(typer.main.get_command(app)))

    assert len(tree) > 15
    assert list(never_run(tree, runs())) == []


@pytest.mark.parametrize(
    ("place", "missing"),
    [
        (set(), ["dead list", "dead list --json"]),
        ({"dead", "list"}, ["dead list --json"]),
        ({"dead", "list", "--json"}, []),
        ({"list", "--json"}, ["dead list", "dead list --json"]),
    ],
)
def test_what_no_place_runs_is_named(place: Set[str], missing: list[str]) -> None:
    tree = {("dead", "list"): [("--json",)]}

    assert list(never_run(tree, [Words(place)])) == missing
