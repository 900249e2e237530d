"""The documentation as something that can be run: its files and its commands, in order."""

import re
import signal
import subprocess
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from waiting import LIMIT, Log

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
INSTALLS = {"pip install .", "pip install pytest pytest-asyncio"}
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
    """What a reader would do on this page, top to bottom. Fails on a Python block that names no file.

    A block of `py` is for another library, which is not installed here: it is only compiled."""
    found = []
    for _, language, block in _BLOCK.findall(page.read_text()):
        text = textwrap.dedent(block)
        if language == "python":
            name = _FILE.match(text)
            assert name, f"{page.name}: a python block does not begin with its file's name: {text[:60]!r}"
            found.append(Step(text, name[1]))
        elif language == "bash":
            found += [Step(line) for line in text.splitlines() if line.strip()]
        elif language == "py":
            compile(text, page.name, "exec")
        else:
            assert language == "text", f"{page.name}: nothing runs a block of {language}"
    return found


@contextmanager
def a_terminal(folder: Path, environment: dict[str, str]) -> Iterator["Terminal"]:
    terminal = Terminal(folder, environment)
    try:
        yield terminal
    finally:
        terminal.close()


class Terminal:
    """Writes files, runs commands; `holdfast run` goes on in the background and must drain with exit 0."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._folder = folder
        self._environment = environment
        self._workers: list[tuple[str, subprocess.Popen[bytes], Log]] = []

    def __call__(self, step: Step) -> None:
        command = step.text
        if step.name is not None:
            (self._folder / step.name).write_text(command)
        elif command.startswith("make "):
            assert re.search(rf"^{command.split()[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), command
        elif command.startswith("pip install"):
            assert command in INSTALLS  # that the wheel installs is what this very run stands on
        elif command.startswith("holdfast run"):
            self._start(command)
        else:
            done = subprocess.run(
                ["bash", "-c", command],
                cwd=self._folder,
                env=self._environment,
                capture_output=True,
                timeout=90,
                check=False,
            )
            assert done.returncode == 0, f"{command}\n{done.stdout.decode()}\n{done.stderr.decode()}"

    def _start(self, command: str) -> None:
        log = Log()
        worker = subprocess.Popen(command.split(), cwd=self._folder, env=self._environment, stderr=log.output)
        log.follow()
        self._workers.append((command, worker, log))
        log.until(lambda text: "worker.started" in text)

    def close(self) -> None:
        for command, worker, log in self._workers:
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(LIMIT) == 0, f"{command}\n{log.text}"
