"""The documentation as something that can be run: its files and its commands, in order."""

import re
import shlex
import signal
import subprocess
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from commands import Running, holdfast, script

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
INSTALLS = {"pip install .", "pip install '.[dashboard]'", "pip install pytest pytest-asyncio"}
SERVES = {
    "holdfast run": "worker.started",
    "holdfast relay": "relay.started",
    "holdfast dashboard": "dead letters at",
}
"""Commands that go on in the background, and what each writes once it is up."""
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
        elif language != "mermaid":  # each is compared with what the code draws
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
    """Writes files, runs commands; `holdfast run` goes on in the background and must drain with exit 0, and so does
    the dead-letter page, which may end by the signal.

    It has the patience of a reader: before it looks at dead letters, what it published has been handled or is dead."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._folder = folder
        self._environment = environment
        self._serving: dict[str, Running] = {}
        self._published: list[str] = []

    def __call__(self, step: Step) -> None:
        command = step.text
        if step.name is not None:
            (self._folder / step.name).write_text(command)
        elif command.startswith("make "):
            assert re.search(rf"^{command.split()[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), command
        elif command.startswith("pip install"):
            assert command in INSTALLS  # that the wheel installs is what this very run stands on
        elif (words := " ".join(command.split()[:2])) in SERVES:
            self._serve(command, SERVES[words])
        else:
            self._run(command)

    def _run(self, command: str) -> None:
        if command.startswith("holdfast dead"):
            self._settle()
        words, environment = without_shell(command), self._environment
        while words and (variable := re.fullmatch(r"([A-Z_]+)=(.*)", words[0])):
            words, environment = words[1:], environment | {variable[1]: variable[2]}
        match words:
            case ["holdfast", *arguments]:
                done = holdfast(*arguments, folder=self._folder, env=environment)
            case ["python", file] if file.endswith(".py"):
                done = script(file, self._folder, environment)
            case _:
                shell, options = ["bash", "-c", command], {"cwd": self._folder, "env": self._environment}
                done = subprocess.run(shell, **options, capture_output=True, text=True, timeout=90, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        if "holdfast publish" in command:  # of many events it prints the number alone
            self._published += re.findall(r"^[0-9a-f-]{36}$", done.stdout, re.MULTILINE)

    def _serve(self, command: str, up: str) -> None:
        if command in self._serving:  # a reader stops it with Ctrl-C before it is started again
            self._stop(command)
        self._serving[command] = serving = Running(*command.split()[1:], folder=self._folder, env=self._environment)
        serving.until(lambda log: up in log)

    def _settle(self) -> None:
        workers = [worker for command, worker in self._serving.items() if command.startswith("holdfast run")]
        for event_id in self._published if workers else ():
            workers[-1].until(partial(ended, event_id))
        self._published.clear()

    def _stop(self, command: str) -> None:
        serving = self._serving.pop(command)
        ends = {0, -signal.SIGTERM} if command.startswith("holdfast dashboard") else {0}
        assert serving.stop() in ends, f"{command}\n{serving.log}"

    def close(self) -> None:
        for command in list(self._serving):
            self._stop(command)


def without_shell(command: str) -> list[str]:
    """The words of a command in which a shell has nothing to do; none where it has."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars=True)
    lexer.whitespace_split, lexer.commenters = True, ""
    words = list(lexer)
    return [] if re.search(r"[$`*~#\n]", command) or any(set(word) <= set("();<>|&") for word in words) else words


def ended(event_id: str, log: str) -> bool:
    """Whether a line of the log says that the event was handled or dead-lettered."""
    return any(
        f'"event_id": "{event_id}"' in line and re.search(r'"outcome": "(handled|dead_lettered)"', line)
        for line in log.splitlines()
    )
