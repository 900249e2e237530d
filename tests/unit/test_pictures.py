"""The pictures of the documentation: each page shows files that are there, are small, and can be told in words."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [page for page in (ROOT / "README.md", *sorted(DOCS.rglob("*.md"))) if "pictures/" in page.read_text()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_shows_pictures_that_are_there_small_and_told_in_words(page: Path) -> None:
    shown = re.findall(r"!\[([^\]]*)\]\(((?:docs/)?pictures/[^)]+)\)", page.read_text())

    assert shown
    for words, file in shown:
        assert len(words) > 20, f"{file}: whoever does not see it is told nothing"
        assert (page.parent / file).stat().st_size < 120_000


def test_every_picture_is_shown() -> None:
    there = {f"pictures/{path.name}" for path in (DOCS / "pictures").iterdir()}

    shown = {file for page in PAGES for file in re.findall(r"\]\((?:docs/)?(pictures/[^)]+)\)", page.read_text())}
    assert shown == there
