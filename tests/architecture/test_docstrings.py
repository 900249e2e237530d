"""The public names say what they take, return and raise: the reference of the site is made of their docstrings."""

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import pytest

import holdfast
from holdfast import journal, sagas, sql, testing

DECLARING = ("begins", "late", "on")
PUBLIC = {
    **{name: getattr(holdfast, name) for name in holdfast.__all__},
    **{f"testing.{name}": getattr(testing, name) for name in testing.__all__},
    **{f"sql.{name}": getattr(sql, name) for name in ("Database", "Outbox")},
    **{f"sagas.{name}": getattr(sagas, name) for name in vars(sagas) if name[0].isupper() or name in DECLARING},
    **{
        f"journal.{name}": getattr(journal, name)
        for name in ("Aggregate", "Conflict", "Erased", "Journal", "Projection", "Recorded", "applies")
    },
}
SETTINGS = {"Event", "Settings"}
"""Their constructors take fields, which their users define, or docs/settings.md describes."""


def documented() -> Iterator[tuple[str, str, Any]]:
    """Each public function, constructor and method: its name, its docstring, and what has its signature."""
    for name, public in PUBLIC.items():
        if inspect.isfunction(public):
            yield name, inspect.getdoc(public) or "", public
        elif inspect.isclass(public):
            if name not in SETTINGS and has_own_constructor(public):
                yield name, inspect.getdoc(public) or "", public
            for method, function in methods(public):
                yield f"{name}.{method}", inspect.getdoc(function) or "", function


def has_own_constructor(kind: type) -> bool:
    return is_dataclass(kind) or inspect.isfunction(vars(kind).get("__init__"))


def methods(kind: type) -> Iterator[tuple[str, Any]]:
    for name, member in vars(kind).items():
        function = getattr(member, "__func__", member)
        if not name.startswith("_") and inspect.isfunction(function):
            yield name, function


def arguments(public: Any) -> list[str]:
    if inspect.isclass(public) and is_dataclass(public):
        inherited = {field.name for base in public.__bases__ if is_dataclass(base) for field in fields(base)}
        return [
            field.name for field in fields(public) if not field.name.startswith("_") and field.name not in inherited
        ]
    return [name for name in inspect.signature(public).parameters if name not in ("self", "cls")]


def section(docstring: str, *titles: str) -> str:
    found = re.search(rf"^(?:{'|'.join(titles)}):\n((?:[ \t]+.*\n?|\n)+)", docstring, re.MULTILINE)
    return found[1] if found else ""


CASES = [pytest.param(docstring, public, id=name) for name, docstring, public in documented()]


@pytest.mark.parametrize(("docstring", "public"), CASES)
def test_every_argument_of_a_public_name_is_described(docstring: str, public: Any) -> None:
    described = re.findall(r"^ {4}\*{0,2}(\w+): \S", section(docstring, "Args", "Attributes"), re.MULTILINE)

    assert [name for name in arguments(public) if name not in described] == []


@pytest.mark.parametrize(("docstring", "public"), CASES)
def test_a_public_function_says_what_it_returns(docstring: str, public: Any) -> None:
    returned = inspect.isfunction(public) and inspect.signature(public).return_annotation not in (None, "None")

    assert not returned or section(docstring, "Returns") or docstring.startswith("Return ")


@pytest.mark.parametrize(("docstring", "public"), CASES)
def test_a_public_function_names_the_errors_that_it_raises_itself(docstring: str, public: Any) -> None:
    """By the `raise` statements of its own body: what it calls may raise more."""
    function = vars(public).get("__init__", public) if inspect.isclass(public) else public
    named = re.findall(r"^ {4}([\w.]+): \S", section(docstring, "Raises"), re.MULTILINE)

    assert [error for error in raised(function) if error not in named] == []


def raised(function: Any) -> set[str]:
    if not inspect.isfunction(function) or function.__code__.co_filename.startswith("<"):
        return set()  # a dataclass writes its own constructor
    tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(function))))
    raises = (node.exc for node in ast.walk(tree) if isinstance(node, ast.Raise))
    return {each.func.id for each in raises if isinstance(each, ast.Call) and isinstance(each.func, ast.Name)}


def test_every_public_name_is_looked_at() -> None:
    names = {name for name, _, _ in documented()}

    assert len(names) > 60
    assert {
        "Worker",
        "Worker.handler",
        "Retry",
        "Publisher.publish",
        "testing.Harness.settle",
        "sql.Outbox.publish",
        "sagas.Step.undo_by",
        "journal.Journal.append",
    } <= names
