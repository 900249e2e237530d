"""Names that say nothing of what they name are not given."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = sorted(path.parent.name for path in ROOT.glob("*/__init__.py"))
EMPTY = {"told", "found", "thing", "place", "wish"}


def names(tree: ast.AST) -> Iterator[str]:
    """Every name that a module gives: of values, arguments, functions, classes, fields and keys."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()) | ast.arg(arg=name):
                yield name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Dict(keys=keys):
                yield from (str(key.value) for key in keys if isinstance(key, ast.Constant))


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_name_is_empty(folder: str) -> None:
    files = sorted((ROOT / folder).rglob("*.py"))

    given = {(file.relative_to(ROOT), name) for file in files for name in names(ast.parse(file.read_text()))}

    assert [(file, name) for file, name in given if name.lower().strip("_") in EMPTY] == []
    assert [file for file in files if file.stem in EMPTY] == []
