"""What the code says of its values and its errors is true."""

import ast
import importlib
import pkgutil
import re
from collections.abc import Iterator
from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest

import holdfast
from holdfast import Envelope, HoldfastError, Metadata
from holdfast.broker import Delivery
from holdfast.events import History, Incoming, Message, errors
from holdfast.telemetry import Settled

OF_EVERY_MESSAGE = (Delivery, Envelope, Incoming, Message, Metadata, Settled)


def test_no_code_changes_a_value_that_is_not_frozen() -> None:
    """By the names of their fields: an attribute of such a name is set on `self` alone. `Settled` is left out: it is
    made last, of values whose own fields have the same names."""
    names = {field.name for kind in OF_EVERY_MESSAGE if kind is not Settled for field in fields(kind)}
    package = Path(holdfast.__file__).parent
    changes = [
        f"{path.relative_to(package)}:{target.lineno} {ast.unparse(target)}"
        for path in sorted(package.glob("**/*.py"))
        for target in set_attributes(ast.parse(path.read_text()))
        if target.attr in names and ast.unparse(target.value) != "self"
    ]

    assert changes == []


def set_attributes(tree: ast.AST) -> Iterator[ast.Attribute]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store | ast.Del):
            yield node


@pytest.mark.parametrize("kind", OF_EVERY_MESSAGE)
def test_a_value_that_can_be_changed_has_no_hash_that_would_change_with_it(kind: type) -> None:
    assert kind.__hash__ is None


def test_a_value_that_says_frozen_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        History().attempt = 2  # type: ignore[misc]


def test_the_tree_of_errors_names_every_error_of_the_package() -> None:
    for module in pkgutil.walk_packages(holdfast.__path__, "holdfast."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)

    drawn = {
        depth_and_name(line) for line in (errors.__doc__ or "").splitlines() if re.match(r"HoldfastError|[│├└]", line)
    }

    assert drawn == set(of_tree(HoldfastError))


def depth_and_name(line: str) -> tuple[int, str]:
    marks, name = re.match(r"([│├└─ ]*)(\w+)", line).groups()  # type: ignore[union-attr]
    return len(marks) // 4, name


def of_tree(kind: type, depth: int = 0) -> Iterator[tuple[int, str]]:
    if not kind.__module__.startswith("holdfast.") or kind.__name__.startswith("_"):
        return
    yield depth, kind.__name__
    for below in kind.__subclasses__():
        yield from of_tree(below, depth + 1)


def test_every_error_says_what_it_means() -> None:
    assert [kind.__name__ for kind in all_below(HoldfastError) if not vars(kind).get("__doc__")] == []


def all_below(kind: type) -> Iterator[type]:
    """The class, and each of the package's that inherits from it."""
    if kind.__module__.startswith("holdfast."):
        yield kind
        for below in kind.__subclasses__():
            yield from all_below(below)
