import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import holdfast

PACKAGE = Path(holdfast.__file__).parent
READS = {"environ", "environb", "getenv", "getenvb"}


def reads_of_the_environment(source: str) -> Iterator[int]:
    """The lines where a module reaches for the environment through `os`."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Attribute(value=ast.Name(id="os"), attr=attribute) if attribute in READS:
                yield node.lineno
            case ast.ImportFrom(module="os", names=names) if READS & {name.name for name in names}:
                yield node.lineno


def test_the_environment_is_read_in_config_alone() -> None:
    places = [
        f"{file.relative_to(PACKAGE)}:{line}"
        for file in sorted(PACKAGE.rglob("*.py"))
        if file.relative_to(PACKAGE).parts[0] != "config"
        for line in reads_of_the_environment(file.read_text())
    ]

    assert places == []


@pytest.mark.parametrize(
    "source",
    ["import os\nos.environ['A']", "import os\nos.getenv('A')", "from os import environ", "import os\nf(os.environ)"],
)
def test_each_way_to_read_the_environment_is_seen(source: str) -> None:
    assert list(reads_of_the_environment(source))
