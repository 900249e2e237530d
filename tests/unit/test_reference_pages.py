"""The pages of the reference that `make reference` writes are those of the code: every setting, every command."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pages import ROOT

from holdfast.config import known_variables

PAGES = [ROOT / "docs" / name for name in ("settings.md", "command-line.md", "decisions/README.md")]


def test_the_pages_of_settings_commands_and_decisions_are_those_of_the_code(tmp_path: Path) -> None:
    (tmp_path / "decisions").mkdir()
    copies = [Path(shutil.copy(page, tmp_path / page.relative_to(ROOT / "docs"))) for page in PAGES]

    subprocess.run([sys.executable, str(ROOT / "scripts" / "reference.py"), str(tmp_path)], check=True)

    assert [copy.read_text() for copy in copies] == [page.read_text() for page in PAGES], "run `make reference`"


def test_the_settings_page_has_a_row_for_each_variable_and_the_url_first() -> None:
    tables = (ROOT / "docs" / "settings.md").read_text().split("\n## ")[1:]
    rows = [[line.split("`")[1] for line in table.splitlines() if line.startswith("| `")] for table in tables]

    assert sorted(row for group in rows for row in group) == sorted(known_variables())
    for group in rows:
        assert group[0].endswith("__URL") or not any(row.endswith("__URL") for row in group)


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("[a-z]*.md")), ids=lambda page: page.stem)
def test_a_page_begins_with_the_reader_it_is_for(page: Path) -> None:
    """The pages of decisions, whose names begin with a digit, are for those who come from their list."""
    heading, about = page.read_text().split("\n\n")[:2]

    assert heading.startswith("# ")
    assert about.startswith("For ")
