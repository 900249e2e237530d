"""Running `holdfast` as a user would: as a command, in a folder of its own."""

import asyncio
import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any, TypeAlias

from apps import APPS
from waiting import LIMIT, Log, blocking, eventually

FORKS = "HOLDFAST_TEST_FORKS"
"""The variable that names the socket of a process that forks commands, where processes that test share one."""


def environment(**variables: str) -> dict[str, str]:
    """This process' environment without Holdfast's variables, and with these; metrics are served on any free port. A
    machine that does something else for a second is not written about."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST_")}
    return inherited | {"HOLDFAST_HTTP__PORT": "0", "HOLDFAST_WORKER__BLOCK_LIMIT": "60"} | variables


def holdfast(
    *arguments: str, folder: Path, env: Mapping[str, str], stdin: str | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end."""
    return _ended(("holdfast", *arguments), folder, env, stdin)


def script(name: str, folder: Path, env: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    """Run a script of a folder to its end, as `python NAME` does there."""
    return _ended((name,), folder, env, path=[str(folder)])


def _ended(
    words: Sequence[str], folder: Path, env: Mapping[str, str], stdin: str | None = None, path: Sequence[str] = ()
) -> "subprocess.CompletedProcess[str]":
    with ExitStack() as stack:
        given, output, errors = (stack.enter_context(TemporaryFile("w+", encoding="utf-8")) for _ in range(3))
        given.write(stdin or "")
        given.seek(0)
        process = start(words, folder, env, (given.fileno(), output.fileno(), errors.fileno()), path=path)
        try:
            code = process.wait(LIMIT * 2)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        output.seek(0)
        errors.seek(0)
        return subprocess.CompletedProcess(words, code, output.read(), errors.read())


def start(
    words: Sequence[str],
    folder: Path,
    env: Mapping[str, str],
    files: tuple[int | None, int, int],
    *,
    path: Sequence[str] = (),
    own_group: bool = False,
) -> "Process":
    """Start `holdfast`, or a program of tests/apps, with these standard files; without an input it has an empty one.

    It also imports from `path`.
    It is a fork of a process that has everything imported, unless the environment says how Python is to start.
    """
    given, output, errors = files
    if _of_python(env) == _of_python(os.environ):
        with Path(os.devnull).open() as nothing:
            more = {"path": path, "own_group": own_group}
            standard = (nothing.fileno() if given is None else given, output, errors)
            return Forked(_forks(), {"words": words, "folder": str(folder), "env": dict(env)} | more, standard)
    assert words[0] == "holdfast"
    command = [sys.executable, "-m", *words]
    return subprocess.Popen(
        command,
        cwd=folder,
        env=dict(env),
        stdin=subprocess.DEVNULL if given is None else given,
        stdout=output,
        stderr=errors,
        start_new_session=own_group,
    )


class Forked:
    """A command in a fork of tests/apps/forks.py: what a test needs of `subprocess.Popen`."""

    def __init__(self, path: str, request: Mapping[str, Any], files: Sequence[int]) -> None:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(path)
            text = json.dumps(request).encode() + b"\n"
            connection.sendall(text[socket.send_fds(connection, [text], list(files)) :])
            self._report = connection.detach()
        self.pid = self._number()
        self.returncode: int | None = None
        self._one_at_a_time = threading.Lock()
        weakref.finalize(self, os.close, self._report)

    def fileno(self) -> int:
        """Return a file that can be read once it ended."""
        return self._report

    def poll(self) -> int | None:
        """Return its exit code; None while it runs."""
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        """Return its exit code, once it ended. Raises `subprocess.TimeoutExpired` after `timeout` seconds."""
        ready = self.returncode is not None or select.select([self._report], [], [], timeout)[0]
        with self._one_at_a_time:
            if self.returncode is None:
                if not ready:
                    raise subprocess.TimeoutExpired("holdfast", timeout or 0)
                self.returncode = self._number()
            return self.returncode

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, unless it ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once, unless it ended."""
        self.send_signal(signal.SIGKILL)

    def _number(self) -> int:
        """The next line of the report."""
        text = b""
        while not text.endswith(b"\n"):
            text += os.read(self._report, 1) or b"and no more\n"
        return int(text)


Process: TypeAlias = "subprocess.Popen[bytes] | Forked"


async def ended(process: Process) -> int:
    """Wait for the end of a process, for which nobody else waits in this way. Returns its exit code."""
    is_fork = isinstance(process, Forked)
    file = process.fileno() if is_fork else os.pidfd_open(process.pid)
    loop, end = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(file, end.set)
    try:
        await end.wait()
    finally:
        loop.remove_reader(file)
    return process.wait()


def _of_python(env: Mapping[str, str]) -> dict[str, str]:
    """What Python reads of an environment when it starts."""
    return {name: value for name, value in env.items() if name.startswith(("PYTHON", "LC_", "LANG"))}


@contextmanager
def forks() -> Iterator[str]:
    """A process that forks commands, and its socket."""
    with TemporaryDirectory(prefix="holdfast-forks-") as folder:
        path = f"{folder}/socket"
        command = [sys.executable, APPS / "forks.py", path]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdout
            assert process.stdout.readline() == b"listening\n"
            yield path


@cache
def _forks() -> str:
    """The socket of the process that is shared, or else of one that ends with this process."""
    if shared := os.environ.get(FORKS):
        return shared
    own = ExitStack()
    atexit.register(own.close)
    return own.enter_context(forks())


class Running:
    """A command that goes on, and its log."""

    def __init__(self, *arguments: str, folder: Path, env: Mapping[str, str], own_group: bool = False) -> None:
        """`own_group`: as the foreground job of a terminal, whose Ctrl-C goes to the whole process group."""
        self._log = Log()
        files = (None, self._log.output, self._log.output)
        self.process = start(("holdfast", *arguments), folder, env, files, own_group=own_group)
        self._log.follow()

    @property
    def log(self) -> str:
        return self._log.text

    def until(self, condition: Callable[[str], bool]) -> None:
        """Wait until the log says so; fails with the log when the process ends or the limit is over."""
        self._log.until(condition)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still there after {LIMIT:g} s; wrote {self.log}") from None

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *failure: object) -> None:
        self.process.kill()
        self.process.wait()


def killed_when(condition: Callable[[], bool], *arguments: str, folder: Path, env: dict[str, str]) -> None:
    """Run a command and SIGKILL it as soon as the condition holds."""
    with Running(*arguments, folder=folder, env=env) as tool:
        blocking(eventually(lambda: condition() or tool.process.poll() is not None, every=0.005))
        tool.process.send_signal(signal.SIGKILL)
        assert tool.process.wait() == -signal.SIGKILL, tool.log
