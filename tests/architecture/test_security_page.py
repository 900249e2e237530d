"""SECURITY.md names a test for each promise. Here they have to exist."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def test_every_test_that_the_page_names_is_there() -> None:
    named = set(NAMED.findall((ROOT / "SECURITY.md").read_text()))

    missing = [f"{file}::{name}" for file, name in sorted(named) if name not in names_in(ROOT / file)]

    assert len(named) > 20
    assert not missing


def names_in(file: Path) -> set[str]:
    if not file.exists():
        return set()
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.parse(file.read_text()).body if isinstance(node, functions)}
