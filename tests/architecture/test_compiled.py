"""What the compiled wheel compiles (`scripts/compiled_setup.py`), and how those modules have to be written."""

import ast
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES: tuple[str, ...] = runpy.run_path(str(ROOT / "scripts" / "compiled_setup.py"))["MODULES"]


def test_each_module_is_there_and_named_once() -> None:
    assert [module for module in MODULES if not (ROOT / module).is_file()] == []
    assert sorted(set(MODULES)) == sorted(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_nothing_is_awaited_while_an_exception_is_handled(module: str) -> None:
    """A compiled coroutine that is suspended there leaves its exception behind as the context of everybody else's."""
    handlers = [
        node for node in ast.walk(ast.parse((ROOT / module).read_text())) if isinstance(node, ast.ExceptHandler)
    ]
    waits = [
        node.lineno
        for handler in handlers
        for node in ast.walk(handler)
        if isinstance(node, ast.Await | ast.AsyncWith | ast.AsyncFor | ast.Yield | ast.YieldFrom)
    ]

    assert waits == []


def test_no_python_class_inherits_from_a_compiled_one() -> None:
    """Python refuses it in the compiled wheel."""
    compiled = {
        node.name
        for module in MODULES
        for node in ast.walk(ast.parse((ROOT / module).read_text()))
        if isinstance(node, ast.ClassDef)
    }
    others = [
        path
        for path in sorted(ROOT.glob("[a-z]*/**/*.py"))
        if path.relative_to(ROOT).parts[0] != "build" and str(path.relative_to(ROOT)) not in MODULES
    ]
    heirs = [
        f"{path.relative_to(ROOT)}: {node.name}({ast.unparse(base)})"
        for path in others
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
        for base in node.bases
        if (name := ast.unparse(base).rpartition(".")[2].partition("[")[0]) in compiled
        and f"class {name}" not in "".join(sibling.read_text() for sibling in path.parent.glob("*.py"))
    ]

    assert heirs == []
