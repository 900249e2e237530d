"""Child processes that never outlive their parent, and the ports they listen on."""

import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from .node import ServersUnavailable

LOOPBACK = "127.0.0.1"

# Ends the server when this process is gone, however it went: a pipe that only we hold open tells. The guard leads a
# session of its own, so that Ctrl-C reaches the tests and leaves it to do its work.
_GUARD = 'read -r word; [ "$word" = done ] || { kill -KILL "$1"; [ -z "$2" ] || rm -rf "$2"; }'

SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/homebrew/sbin:/opt/homebrew/bin"


def program(name: str) -> Path | None:
    """Where a system program is, if it is installed."""
    path = shutil.which(name, path=SEARCH_PATH)
    return Path(path) if path else None


def free_port() -> int:
    """A loopback port nobody listens on, below the range the system hands out to outgoing connections.

    A client that keeps connecting to a closed port *inside* that range is, one day, given the same port as its own
    source: it then talks to itself and keeps the server from coming back.
    """
    for _ in range(1000):
        port = random.randint(10_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            return port
    raise ServersUnavailable(f"no free port on {LOOPBACK} between 10000 and 32000")


class Process:
    """One running server process."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path, discard: Path | None = None):
        """Start `command`; its output goes to `log`, and `discard` is deleted should this process die before `end`."""
        self._log = log
        with log.open("ab") as output:
            self._child = subprocess.Popen(
                command,
                env=environment,
                cwd=log.parent,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", _GUARD, "guard", str(self._child.pid), str(discard or "")],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def alive(self) -> bool:
        return self._child.poll() is None

    def until_it_answers(self, asks: Callable[[socket.socket], bool], port: int, within: float) -> None:
        """Return when it answers on the loopback `port`; raises `ServersUnavailable` with the end of its log."""
        until_it_answers(asks, (LOOPBACK, port), within, lambda: self.alive, lambda: _tail(self._log))

    def send(self, number: signal.Signals) -> None:
        self._child.send_signal(number)

    def end(self, number: signal.Signals, within: float = 30.0) -> None:
        """Send the signal and wait for the end; after `within` seconds, kill."""
        if self.alive:
            self.send(number)
            try:
                self._child.wait(within)
            except subprocess.TimeoutExpired:
                self._child.kill()
        self._child.wait()
        if self._guard.poll() is None:
            self._guard.communicate(b"done\n")


class PrivateNode(ABC):
    """A server of our own with its data in a folder. Stop, kill and start it as a test needs: data and port stay."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self._log = data / "output.log"
        self._port = free_port()
        self._process: Process | None = None

    @property
    def pid(self) -> int | None:
        """The process id of the server; None while it is down."""
        return self._process.pid if self._process else None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.alive

    def start(self) -> None:
        if not self.running:
            self._process = self._launch()
            self._await(self._process)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        self._send(signal.SIGSTOP)

    def resume(self) -> None:
        self._send(signal.SIGCONT)

    def close(self) -> None:
        """End the server at once. The data is not worth an orderly shutdown."""
        self.kill()

    @abstractmethod
    def _launch(self) -> Process:
        """Start the process."""

    @abstractmethod
    def _await(self, process: Process) -> None:
        """Return once it serves. Raises `ServersUnavailable`."""

    def _send(self, number: signal.Signals) -> None:
        if self._process:
            self._process.send(number)

    def _end(self, number: signal.Signals) -> None:
        if self._process:
            self.resume()
            self._process.end(number)
            self._process = None


@contextmanager
def data_folder(prefix: str) -> Iterator[Path]:
    """Make a folder for the data of a server, which is gone with everything in it at the end."""
    data = Path(tempfile.mkdtemp(prefix=prefix))
    try:
        yield data
    finally:
        shutil.rmtree(data, ignore_errors=True)


def until_it_answers(
    asks: Callable[[socket.socket], bool],
    address: tuple[str, int],
    within: float,
    alive: Callable[[], bool],
    last_words: Callable[[], str],
) -> None:
    """Return when a connection to `address` gets the answer `asks` looks for.

    Raises `ServersUnavailable`, with the server's last words, if it is not alive or `within` seconds pass first.
    """
    deadline = time.monotonic() + within
    while time.monotonic() < deadline and alive():
        try:
            with socket.create_connection(address, timeout=2) as connection:
                if asks(connection):
                    return
        except OSError:
            pass
        time.sleep(0.03)
    fate = "did not answer in time" if alive() else "ended"
    raise ServersUnavailable(f"the server at {address[0]}:{address[1]} {fate}; its last words:\n{last_words()}")


def run_tool(command: Sequence[str], environment: Mapping[str, str], within: float = 60.0) -> str:
    """What a tool printed; raises `ServersUnavailable` with its words if it failed."""
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=within, check=False)
    if ended.returncode != 0:
        said = (ended.stderr or ended.stdout).strip()
        raise ServersUnavailable(f"{' '.join(command)} failed with {ended.returncode}: {said}")
    return ended.stdout


def private_environment(home: Path) -> dict[str, str]:
    """An environment that inherits nothing: the settings of a server on this machine do not reach a private one."""
    return {"HOME": str(home), "PATH": SEARCH_PATH, "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}


def is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0


def _tail(log: Path, size: int = 2000) -> str:
    return log.read_text(errors="replace")[-size:].strip() if log.exists() else "(none)"
