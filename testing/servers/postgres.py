"""A private PostgreSQL server: own port, own data, stopped afterwards."""

import os
import select
import shutil
import signal
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from .node import ServersUnavailable
from .process import (
    LOOPBACK,
    PrivateNode,
    Process,
    data_folder,
    is_root,
    private_environment,
    program,
    run_tool,
)

_DEBIAN = Path("/usr/lib/postgresql")
_USER = "postgres"
_OPTIONS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "max_connections": "200",
    "max_prepared_transactions": "0",
}


def find_postgres() -> Path | None:
    """`postgres` on this machine: on the path, or the newest of Debian's, which are not on it."""
    newest = sorted(_DEBIAN.glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]), reverse=True)
    server = program("postgres") or next(iter(newest), None)
    return server.resolve() if server else None


class PrivatePostgres(PrivateNode):
    """A server of our own. It refuses to run as root; then it runs as the user `postgres`."""

    def __init__(self, server: Path, base: Path) -> None:
        super().__init__(base)
        self._server = server
        self._environment = private_environment(base)

    @property
    def url(self) -> str:
        return f"postgresql://{_USER}@{LOOPBACK}:{self._port}/postgres"

    def _launch(self) -> Process:
        tables = self.data / "data"
        if not tables.exists():
            tool = str(self._server.with_name("initdb"))
            options = ["--auth=trust", f"--username={_USER}", "--encoding=UTF8", "--locale=C", "--no-sync"]
            run_tool(_unprivileged(tool, "-D", str(tables), *options), self._environment)
            with (tables / "postgresql.conf").open("a") as file:  # `alter system` may say otherwise
                file.write("fsync = off\n")  # a killed process loses nothing that the operating system has
        settings = [word for name, value in _OPTIONS.items() for word in ("-c", f"{name}={value}")]
        command = _unprivileged(str(self._server), "-D", str(tables), "-p", str(self._port), *settings)
        return Process(command, self._environment, self._log, discard=self.data)

    def _await(self, process: Process) -> None:
        process.until_it_answers(speaks_postgres, self._port, within=60)

    def stop(self) -> None:
        self._end(signal.SIGINT)  # "fast": it does not wait for its clients to leave

    def kill(self) -> None:
        _signal(self.pid, signal.SIGSTOP)  # it starts no process that would not be among these
        children = self._children()
        _signal(self.pid, signal.SIGKILL)
        self._end(signal.SIGKILL)
        for pid in children:  # one that lives on keeps the next server from starting
            _kill(pid)

    def pause(self) -> None:
        for pid in (self.pid, *self._children()):
            _signal(pid, signal.SIGSTOP)

    def resume(self) -> None:
        for pid in (*self._children(), self.pid):
            _signal(pid, signal.SIGCONT)

    def ctl(self, *arguments: str) -> str:
        """What `psql` prints for these statements, asked of this server."""
        commands = [word for statement in arguments for word in ("-c", statement)]
        return run_tool([str(self._server.with_name("psql")), self.url, "-AtXq", *commands], self._environment)

    def _children(self) -> list[int]:
        """The processes that serve its connections, one each."""
        if not self.running:
            return []
        with suppress(OSError):
            return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]
        return []


@contextmanager
def private_postgres() -> Iterator[PrivatePostgres]:
    """A running private server, gone without a trace at the end.

    Raises `ServersUnavailable` if PostgreSQL is not installed or does not start.
    """
    server = find_postgres()
    if server is None:
        raise ServersUnavailable("postgresql is not installed on this machine")
    with data_folder("holdfast-postgres-") as base, closing(PrivatePostgres(server, base)) as node:
        if is_root():
            shutil.chown(base, _USER, _USER)
        node.start()
        yield node


def speaks_postgres(connection: socket.socket) -> bool:
    """Whether a PostgreSQL server lets us in: while it starts and recovers, it answers with an error."""
    words = f"user\0{_USER}\0database\0postgres\0\0".encode()
    connection.sendall((len(words) + 8).to_bytes(4) + (196_608).to_bytes(4) + words)
    return connection.recv(1) == b"R"


def _unprivileged(*command: str) -> list[str]:
    return ["setpriv", f"--reuid={_USER}", f"--regid={_USER}", "--init-groups", *command] if is_root() else [*command]


def _signal(pid: int | None, number: signal.Signals) -> None:
    if pid is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _kill(pid: int) -> None:
    """End a process that is not our child, and wait for its end."""
    with suppress(ProcessLookupError):
        process = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(process, signal.SIGKILL)
            ended = select.poll()
            ended.register(process, select.POLLIN)
            ended.poll()
        finally:
            os.close(process)
