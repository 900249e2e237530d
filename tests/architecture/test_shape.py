"""What the code looks like is decided too: one place that acks, relative imports, pinned public names."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import FunctionType

import holdfast

ROOT = Path(__file__).parents[2]
PACKAGES = (
    *("broker", "cli", "config", "consumer", "dead_letters", "events"),
    *("idempotency", "publisher", "sagas", "telemetry", "testing"),
)

TESTS = ROOT / "tests"
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
CLIENTS = ("test_documentation.py", "test_examples.py")
"""These try the web applications that stand in the documentation and in examples/, by a short program beside them."""

VIRTUAL_TIME = ("test_memory_broker.py", "test_claims.py", "test_sleeping.py")  # their seconds pass at once
SLEEPS = {
    "support/proxy.py _pump",  # a slow network
    "faults/arena.py pause",  # how long a fault lasts
    *(f"faults/load.py {name}" for name in ("publish", "steady")),  # as a publisher does: between tries, and at a rate
    "faults/queues.py take",  # tries again for as long as a queue may have no leader, then raises what the broker said
}
"""The functions in which the time that passes is what the test is about."""

PUBLIC = [
    "Backoff",
    "BlockingPublisher",
    "BrokerUnavailable",
    "ConfigurationError",
    "Context",
    "DecodeError",
    "Envelope",
    "Event",
    "Existing",
    "Following",
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
    "Ordered",
    "Progress",
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
            yield path, parsed(path)


def product() -> Iterator[tuple[Path, ast.Module]]:
    return sources(*(folder.parent.name for folder in ROOT.glob("*/__init__.py")))


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def calls(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def called(call: ast.Call) -> str:
    """The last part of the name of what is called."""
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def by_function(node: ast.AST, function: str = "") -> Iterator[tuple[str, ast.AST]]:
    """Each node, with the name of the innermost function that it is in."""
    for below in ast.iter_child_nodes(node):
        yield function, below
        yield from by_function(below, below.name if isinstance(below, FUNCTIONS) else function)


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

    assert len(places) == 1 and places[0].startswith("receipts.py"), places


def test_the_public_names_are_these() -> None:
    assert sorted(holdfast.__all__) == sorted(PUBLIC)
    assert all(hasattr(holdfast, name) for name in PUBLIC)


def test_every_public_name_says_what_it_is() -> None:
    things = {name: getattr(holdfast, name) for name in PUBLIC}
    silent = [name for name, thing in things.items() if isinstance(thing, type | FunctionType) and not thing.__doc__]

    assert silent == []


def test_nothing_depends_on_an_assert_which_python_leaves_out_with_o() -> None:
    asserts = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path, tree in product()
        for node in ast.walk(tree)
        if isinstance(node, ast.Assert) and path.relative_to(ROOT).parts[0] != "testing"  # asserting is its trade
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


def test_no_cancellation_is_swallowed_by_wait_for() -> None:
    """Up to Python 3.11 it returns what came at the moment of the cancellation, and the task goes on for ever."""
    waits = [path.name for path, tree in product() for call in calls(tree) if called(call) == "wait_for"]

    assert waits == []


def goes_on(loop: ast.While) -> bool:
    """Whether a loop catches what drivers raise, also in place of a cancellation, and turns again."""
    return any(
        re.search(r"(?i)exception|HoldfastError|unavailable", ast.unparse(handler.type or handler))
        and not isinstance(handler.body[-1], ast.Raise | ast.Return | ast.Break)
        for handler in ast.walk(loop)
        if isinstance(handler, ast.ExceptHandler)
    )


def test_what_goes_on_after_any_error_asks_whether_it_was_cancelled() -> None:
    loops = [
        (f"{path.name} {function.name}", any(called(call) == "heed_cancellation" for call in calls(loop)))
        for path, tree in product()
        for function in ast.walk(tree)
        if isinstance(function, ast.AsyncFunctionDef)
        for loop in ast.walk(function)
        if isinstance(loop, ast.While) and goes_on(loop)
    ]

    assert len(loops) > 10
    assert [name for name, asks in loops if not asks] == []


def test_no_test_is_skipped() -> None:
    skipped = [
        f"{path.relative_to(TESTS)}:{call.lineno}"
        for path, tree in sources("tests")
        for call in calls(tree)
        if called(call) in ("skip", "skipif", "xfail", "importorskip")
    ]

    assert skipped == []


def test_tests_await_signals_and_one_function_asks_again_and_again() -> None:
    sleeping = {
        f"{path.relative_to(TESTS).as_posix()} {function}"
        for path, tree in sources("tests")
        if path.name not in VIRTUAL_TIME and path.parent != TESTS / "apps"
        for function, node in by_function(tree)
        if sleeps(node) or spins(node)
    }

    assert sleeping == {"support/waiting.py eventually", *SLEEPS}


def sleeps(node: ast.AST) -> bool:
    """Whether it is a call that waits for time to pass, and not only for the other tasks to have their turn."""
    is_sleep = isinstance(node, ast.Call) and called(node) == "sleep"
    return is_sleep and not (isinstance(node.args[0], ast.Constant) and node.args[0].value == 0)


def spins(node: ast.AST) -> bool:
    """Whether it is a loop that does nothing but ask its condition."""
    return isinstance(node, ast.While) and all(isinstance(step, ast.Pass) for step in node.body)


def test_the_name_of_a_test_has_at_most_eighty_characters() -> None:
    long = [
        f"{path.relative_to(TESTS)} {node.name}"
        for path, tree in sources("tests")
        for node in ast.walk(tree)
        if isinstance(node, FUNCTIONS) and node.name.startswith("test_") and len(node.name) > 80
    ]

    assert long == []


def test_every_class_that_tests_share_has_a_name_of_its_own() -> None:
    shared = [
        node.name
        for path, tree in sources("tests/support", "tests/faults")
        for node in tree.body
        if isinstance(node, ast.ClassDef) and not path.name.startswith("test_")
    ]

    assert [name for name, count in Counter(shared).items() if count > 1] == []


def test_an_application_is_a_file_of_tests_apps_and_no_string() -> None:
    """A few lines may stand in a string: those that are wrong on purpose."""
    strings = [
        f"{path.name}:{node.lineno}"
        for path, tree in sources("tests")
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value.splitlines()) > 4
        if re.search(r"^\s*(import|from) \w", node.value, re.MULTILINE)
    ]

    assert [line for line in strings if not line.startswith(CLIENTS)] == []
