"""The documentation as something that can be run: its files and its commands, in order."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# ([\w/.-]+\.py)\n")


@dataclass(frozen=True)
class Step:
    """A file to be written (`name` is set) or a command to be run."""

    text: str
    name: str | None = None


def pages() -> list[Path]:
    """Every page with something that can be run."""
    return [page for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))) if steps(page)]


def steps(page: Path) -> list[Step]:
    """What a reader would do on this page, top to bottom. Fails on a Python block that names no file."""
    found = []
    for language, text in _BLOCK.findall(page.read_text()):
        if language == "python":
            name = _FILE.match(text)
            assert name, f"{page.name}: a python block does not begin with its file's name: {text[:60]!r}"
            found.append(Step(text, name[1]))
        elif language == "bash":
            found += [Step(line) for line in text.splitlines() if line.strip()]
        else:
            assert language == "text", f"{page.name}: nothing runs a block of {language}"
    return found
