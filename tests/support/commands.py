"""Running `holdfast` as a user would: as a command, in a folder of its own."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from waiting import LIMIT, Log, blocking, eventually


def environment(**variables: str) -> dict[str, str]:
    """This process' environment without Holdfast's variables, and with these; metrics are served on any free port."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST_")}
    return inherited | {"HOLDFAST_HTTP__PORT": "0"} | variables


def holdfast(
    *arguments: str, folder: Path, env: Mapping[str, str], stdin: str | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "holdfast", *arguments],
        cwd=folder, env=dict(env), input=stdin, capture_output=True, text=True, timeout=LIMIT * 2, check=False,
    )  # fmt: skip


class Running:
    """A command that goes on, and its log."""

    def __init__(self, *arguments: str, folder: Path, env: Mapping[str, str], own_group: bool = False) -> None:
        """`own_group`: as the foreground job of a terminal, whose Ctrl-C goes to the whole process group."""
        self._log = Log()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "holdfast", *arguments],
            cwd=folder, env=dict(env), stderr=self._log.output, stdout=self._log.output, stdin=subprocess.DEVNULL,
            start_new_session=own_group,
        )  # fmt: skip
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
        return self.process.wait(LIMIT)

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
