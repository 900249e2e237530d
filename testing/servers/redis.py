"""A private Redis server: own port, own data, stopped afterwards."""

import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .node import ServersUnavailable
from .process import LOOPBACK, Process, free_port, private_environment, program, run_tool


def find_redis() -> Path | None:
    """`redis-server` (or `valkey-server`, which is the same to us) on this machine."""
    return program("redis-server") or program("valkey-server")


class PrivateRedis:
    """A server of our own, which writes every change to its append-only file: nothing is lost by `kill`."""

    def __init__(self, server: Path, data: Path) -> None:
        self._server = server
        self.data = data
        self._log = data / "output.log"
        self._port = free_port()
        self._environment = private_environment(data)
        self._process: Process | None = None

    @property
    def url(self) -> str:
        return f"redis://{LOOPBACK}:{self._port}/0"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.alive

    def start(self) -> None:
        if self.running:
            return
        options = {"port": str(self._port), "bind": LOOPBACK, "dir": str(self.data), "save": ""}
        options |= {
            "appendonly": "yes",
            "appendfsync": "always",
        }  # by default up to 2 s of changes wait for a busy disk
        command = [str(self._server), *(word for key, value in options.items() for word in (f"--{key}", value))]
        self._process = Process(command, self._environment, self._log, discard=self.data)
        self._process.until_it_answers(speaks_redis, self._port, within=20)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        if self._process:
            self._process.send(signal.SIGSTOP)

    def resume(self) -> None:
        if self._process:
            self._process.send(signal.SIGCONT)

    def ctl(self, *arguments: str) -> str:
        """What `redis-cli` says, asked of this server."""
        tool = self._server.with_name(self._server.name.replace("-server", "-cli"))
        return run_tool([str(tool), "-p", str(self._port), *arguments], self._environment)

    def close(self) -> None:
        self.kill()

    def _end(self, number: signal.Signals) -> None:
        if self._process:
            self.resume()
            self._process.end(number)
            self._process = None


@contextmanager
def private_redis() -> Iterator[PrivateRedis]:
    """A running private server, gone without a trace at the end.

    Raises `ServersUnavailable` if Redis is not installed or does not start.
    """
    server = find_redis()
    if server is None:
        raise ServersUnavailable("redis-server is not installed on this machine")
    data = Path(tempfile.mkdtemp(prefix="holdfast-redis-"))
    node = PrivateRedis(server, data)
    try:
        node.start()
        yield node
    finally:
        node.close()
        shutil.rmtree(data, ignore_errors=True)


def speaks_redis(connection: socket.socket) -> bool:
    """Whether a Redis server answers and has its data loaded."""
    connection.sendall(b"PING\r\n")
    return connection.recv(5) == b"+PONG"
