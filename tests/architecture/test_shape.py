"""What the code looks like is decided too: one place that acks, relative imports, pinned public names."""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType

import pytest

import holdfast

ROOT = Path(__file__).parents[2]
PACKAGES = (
    *("broker", "cli", "config", "consumer", "dead_letters", "events"),
    *("idempotency", "publisher", "telemetry", "testing"),
)

VIRTUAL_TIME = ("test_memory_broker.py", "test_claims.py")  # their seconds pass at once

PUBLIC = [
    "Backoff",
    "BrokerUnavailable",
    "ConfigurationError",
    "Context",
    "DecodeError",
    "Envelope",
    "Event",
    "Handler",
    "HandlerExit",
    "HandlerSignal",
    "HandlerTimeout",
    "Health",
    "HoldfastError",
    "Metadata",
    "Middleware",
    "NotConnected",
    "NotPermitted",
    "PublishError",
    "PublishRefused",
    "PublishTimeout",
    "Publisher",
    "QueueInUse",
    "Reject",
    "Retry",
    "RetryLater",
    "Settings",
    "TooLarge",
    "TopologyDrift",
    "TopologyError",
    "TopologyMissing",
    "UnknownType",
    "Unreadable",
    "Unroutable",
    "UnsupportedVersion",
    "Worker",
    "downcast",
    "exponential",
    "fixed",
    "linear",
    "load_settings",
    "upcast",
]


def sources(*folders: str) -> Iterator[tuple[Path, ast.Module]]:
    for folder in folders:
        for path in sorted((ROOT / folder).glob("**/*.py")):
            yield path, ast.parse(path.read_text())


def calls(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def test_one_line_of_the_consumer_acks() -> None:
    places = [
        f"{path.name}:{call.lineno}"
        for path, tree in sources("consumer")
        for call in calls(tree)
        if isinstance(call.func, ast.Attribute) and call.func.attr in ("ack", "basic_ack")
    ]

    assert len(places) == 1 and places[0].startswith("pipeline.py"), places


def test_one_line_of_the_dead_letter_tools_acks() -> None:
    places = [
        f"{path.name}:{call.lineno}"
        for path, tree in sources("dead_letters")
        for call in calls(tree)
        if isinstance(call.func, ast.Attribute) and call.func.attr in ("ack", "basic_ack")
    ]

    assert len(places) == 1 and places[0].startswith("receiving.py"), places


def test_the_public_names_are_these() -> None:
    assert sorted(holdfast.__all__) == sorted(PUBLIC)
    assert all(hasattr(holdfast, name) for name in PUBLIC)


def test_every_public_name_says_what_it_is() -> None:
    things = {name: getattr(holdfast, name) for name in PUBLIC}
    silent = [name for name, thing in things.items() if isinstance(thing, type | FunctionType) and not thing.__doc__]

    assert silent == []


def test_the_import_linter_forgets_no_folder() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    known = {contract["name"]: set(contract.get("source_modules", ())) for contract in contracts}
    folders = {f"holdfast.{path.parent.name}" for path in ROOT.glob("*/__init__.py")}
    claims = {f"holdfast.idempotency.{path.stem}" for path in ROOT.glob("idempotency/[!_]*.py")}

    assert known["The AMQP libraries are known in broker alone"] == folders - {"holdfast.broker"}
    assert known["redis is known in idempotency/redis alone"] == folders - {"holdfast.idempotency"} | claims


@pytest.mark.parametrize("folder", ["consumer", "idempotency"])
def test_nothing_depends_on_an_assert(folder: str) -> None:
    asserts = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path, tree in sources(folder)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assert)
    ]

    assert asserts == []


def test_imports_within_the_package_are_relative() -> None:
    absolute = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path, tree in sources(*PACKAGES)
        for node in ast.walk(tree)
        if (isinstance(node, ast.ImportFrom) and node.level == 0 and (node.module or "").split(".")[0] == "holdfast")
        or (isinstance(node, ast.Import) and any(alias.name.split(".")[0] == "holdfast" for alias in node.names))
    ]

    assert absolute == []


@pytest.mark.parametrize("folder", ["unit", "contract", "integration", "architecture", "fuzz"])
def test_no_test_sleeps_and_none_is_skipped(folder: str) -> None:
    found = []
    for path, tree in sources(f"tests/{folder}"):
        for call in calls(tree):
            name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            waits = name == "sleep" and not (isinstance(call.args[0], ast.Constant) and call.args[0].value == 0)
            if waits or name in ("skip", "skipif", "xfail", "importorskip"):
                found.append(f"{path.name}:{call.lineno} {name}")

    assert [place for place in found if not place.startswith(VIRTUAL_TIME)] == []
