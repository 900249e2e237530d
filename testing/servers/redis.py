"""A private Redis server: own port, own data, stopped afterwards."""

import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from .node import ServersUnavailable
from .process import LOOPBACK, PrivateNode, Process, data_folder, private_environment, program, run_tool


def find_redis() -> Path | None:
    """`redis-server` (or `valkey-server`, which is the same to us) on this machine."""
    return program("redis-server") or program("valkey-server")


class PrivateRedis(PrivateNode):
    """A server of our own, which writes every change to its append-only file: nothing is lost by `kill`."""

    def __init__(self, server: Path, data: Path) -> None:
        super().__init__(data)
        self._server = server
        self._environment = private_environment(data)

    @property
    def url(self) -> str:
        return f"redis://{LOOPBACK}:{self._port}/0"

    def ctl(self, *arguments: str) -> str:
        """What `redis-cli` says, asked of this server."""
        tool = self._server.with_name(self._server.name.replace("-server", "-cli"))
        return run_tool([str(tool), "-p", str(self._port), *arguments], self._environment)

    def _launch(self) -> Process:
        options = {"port": str(self._port), "bind": LOOPBACK, "dir": str(self.data), "save": "", "appendonly": "yes"}
        # Each change is written at once. By default up to 2 s of them wait for a busy disk; a killed process loses
        # nothing that the operating system has.
        options["appendfsync"] = "no"
        command = [str(self._server), *(word for key, value in options.items() for word in (f"--{key}", value))]
        return Process(command, self._environment, self._log, discard=self.data)

    def _await(self, process: Process) -> None:
        process.until_it_answers(speaks_redis, self._port, within=20)


@contextmanager
def private_redis() -> Iterator[PrivateRedis]:
    """A running private server, gone without a trace at the end.

    Raises `ServersUnavailable` if Redis is not installed or does not start.
    """
    server = find_redis()
    if server is None:
        raise ServersUnavailable("redis-server is not installed on this machine")
    with data_folder("holdfast-redis-") as data, closing(PrivateRedis(server, data)) as node:
        node.start()
        yield node


def speaks_redis(connection: socket.socket) -> bool:
    """Whether a Redis server answers and has its data loaded."""
    connection.sendall(b"PING\r\n")
    return connection.recv(5) == b"+PONG"
