"""What a stranger asks is answered by the files that CONTRIBUTING.md names."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_twelve_questions_are_each_answered_from_one_or_two_files_that_there_are() -> None:
    answers = re.findall(r"^\| [^|]+\? \| ([^|]+) \|$", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)

    named = [re.findall(r"`([^`]+)`", answer) for answer in answers]
    assert len(named) >= 12
    assert all(1 <= len(files) <= 2 for files in named)
    assert [file for files in named for file in files if not (ROOT / file).is_file()] == []
