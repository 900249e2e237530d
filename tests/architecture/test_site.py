"""The page of the Python reference names each public name under a heading that is right for it."""

import ast
from pathlib import Path
from typing import Any

import holdfast

SITE = ast.parse((Path(__file__).parents[2] / "scripts" / "site.py").read_text())


def values() -> dict[str, Any]:
    """The constants of the hook of MkDocs, which is not installed here."""
    constants = [
        node for node in SITE.body if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict | ast.Tuple)
    ]
    given: dict[str, Any] = {}
    exec(compile(ast.Module(constants, []), "site.py", "exec"), given)
    return given


def test_whatever_is_under_no_other_heading_is_an_error() -> None:
    grouped = {name for names in values()["GROUPS"].values() for name in names}

    others = [name for name in holdfast.__all__ if name not in grouped]

    assert [name for name in others if not issubclass(getattr(holdfast, name), Exception)] == []
    assert grouped <= set(holdfast.__all__)
