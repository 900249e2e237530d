"""Private servers of `make test-databases`: a MariaDB, and a PgBouncer that shares connections between transactions."""

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from holdfast.testing.servers import Given, Server, ServersUnavailable
from holdfast.testing.servers.choose import install
from holdfast.testing.servers.postgres import _unprivileged as unprivileged
from holdfast.testing.servers.postgres import speaks_postgres
from holdfast.testing.servers.process import (
    LOOPBACK,
    PrivateNode,
    Process,
    data_folder,
    is_root,
    private_environment,
    program,
    run_tool,
)

MARIADB_URL = "HOLDFAST_TEST_MARIADB_URL"
_MARIADB = {
    "bind-address": LOOPBACK,
    "innodb-flush-log-at-trx-commit": "2",  # a killed process loses nothing that the operating system has
    "innodb-buffer-pool-size": "64M",
    "max-connections": "200",
}
_PGBOUNCER = """[databases]
* = host={host} port={port} user={user}
[pgbouncer]
listen_addr = {listen}
listen_port = {own}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 20
"""


class PrivateMariaDB(PrivateNode):
    """A MariaDB of our own. As root it runs as the user `mysql`."""

    def __init__(self, server: Path, data: Path) -> None:
        super().__init__(data)
        self._server = server
        # Two that are installed at once would delete each other's temporary tables in a folder that they share.
        self._environment = private_environment(data) | {"TMPDIR": str(data)}

    @property
    def url(self) -> str:
        return f"mariadb://root@{LOOPBACK}:{self._port}/holdfast"

    def _launch(self) -> Process:
        tables, user = self.data / "data", ["--user=mysql"] if is_root() else []
        if not tables.exists():
            (self.data / "start.sql").write_text("create database if not exists holdfast;")
            tool = str(program("mariadb-install-db"))
            options = ["--auth-root-authentication-method=normal", "--skip-test-db", f"--datadir={tables}"]
            run_tool([tool, "--no-defaults", *options, *user], self._environment)
        files = {"datadir": tables, "socket": self.data / "sock", "pid-file": self.data / "pid"}
        settings = files | _MARIADB | {"port": str(self._port), "init-file": self.data / "start.sql"}
        command = [str(self._server), "--no-defaults", *(f"--{name}={value}" for name, value in settings.items())]
        return Process([*command, *user], self._environment, self._log, discard=self.data)

    def _await(self, process: Process) -> None:
        process.until_it_answers(speaks_mysql, self._port, within=60)


class PrivatePgBouncer(PrivateNode):
    """A PgBouncer of our own in front of a PostgreSQL. It refuses to run as root; then it runs as `postgres`."""

    def __init__(self, server: Path, data: Path, postgres: str) -> None:
        super().__init__(data)
        self._server = server
        self._behind = urlsplit(postgres)

    @property
    def url(self) -> str:
        return f"postgresql://{self._behind.username}@{LOOPBACK}:{self._port}{self._behind.path}"

    def _launch(self) -> Process:
        behind, file = self._behind, self.data / "pgbouncer.ini"
        places = {"host": behind.hostname, "port": behind.port or 5432, "user": behind.username}
        file.write_text(_PGBOUNCER.format(**places, listen=LOOPBACK, own=self._port))
        command = unprivileged(str(self._server), str(file))
        return Process(command, private_environment(self.data), self._log, discard=self.data)

    def _await(self, process: Process) -> None:
        process.until_it_answers(speaks_postgres, self._port, within=20)


@contextmanager
def mariadb_server() -> Iterator[Server]:
    """The MariaDB named by `HOLDFAST_TEST_MARIADB_URL`, or else one of our own."""
    if url := os.environ.get(MARIADB_URL):
        yield Given(url)
        return
    server = _installed("mariadbd", "mariadb-server")
    with data_folder("holdfast-mariadb-") as data, closing(PrivateMariaDB(server, data)) as node:
        _open_to("mysql", data)
        node.start()
        yield node


@contextmanager
def pgbouncer_server(postgres: str) -> Iterator[PrivatePgBouncer]:
    """A PgBouncer of our own in front of the PostgreSQL at a URL."""
    server = _installed("pgbouncer", "pgbouncer")
    with data_folder("holdfast-pgbouncer-") as data, closing(PrivatePgBouncer(server, data, postgres)) as node:
        _open_to("postgres", data)
        node.start()
        yield node


def speaks_mysql(connection: socket.socket) -> bool:
    """Whether a server of MySQL's protocol greets."""
    return connection.recv(5)[4:] == b"\x0a"


def _installed(name: str, package: str) -> Path:
    """The program, installed if need be."""
    if program(name) is None and is_root() and program("apt-get") is not None:
        install(package)
    if (server := program(name)) is None:
        raise ServersUnavailable(f"{name} is needed: install it (on Debian or Ubuntu: apt-get install {package})")
    return server


def _open_to(user: str, folder: Path) -> None:
    if is_root():
        shutil.chown(folder, user, user)
