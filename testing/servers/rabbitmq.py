"""A private RabbitMQ node: own ports, own data, own cookie, own port mapper; it leaves nothing behind."""

import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .console import Console, console_command
from .node import ServersUnavailable
from .process import (
    LOOPBACK,
    Process,
    free_port,
    private_environment,
    program,
    run_tool,
)

# Debian's /usr/sbin/rabbitmq-server insists on the user `rabbitmq` and the machine's own data; this one does not.
_PLAIN_SCRIPTS = "usr/lib/rabbitmq/bin"


@dataclass(frozen=True, slots=True)
class RabbitMQPrograms:
    """Where RabbitMQ's programs are on this machine. A subclass may run them in surroundings of their own."""

    server: Path
    epmd: Path

    def command(self, data: Path, arguments: Sequence[str]) -> list[str]:
        """The command line that runs one of the programs with `data` within its reach."""
        return list(arguments)

    def sees(self, data: Path) -> Path:
        """The path under which the programs see `data`."""
        return data

    def escript(self) -> Path | None:
        """The program `rabbitmqctl` itself, for a `Console`; None where this process cannot read it."""
        return next(self.server.parent.parent.glob("lib/rabbitmq_server-*/escript/rabbitmqctl"), None)


def find_rabbitmq() -> RabbitMQPrograms | None:
    """RabbitMQ as it is installed on this machine; None where it is not."""
    plain = Path("/", _PLAIN_SCRIPTS, "rabbitmq-server")
    server = plain if plain.exists() else program("rabbitmq-server")
    epmd = program("epmd") or next(Path("/").glob("usr/*lib/erlang/erts-*/bin/epmd"), None)
    return RabbitMQPrograms(server, epmd) if server and epmd else None


class PrivateRabbitMQ:
    """A node of our own. `start` takes some seconds; stop, kill and start it as a test needs: data and port stay."""

    def __init__(self, programs: RabbitMQPrograms, data: Path) -> None:
        self._programs = programs
        self.data = data
        self._log = data / "output.log"
        self._port, self._mapper_port = free_port(), free_port()
        self._environment = _environment(programs.sees(data), self._port, self._mapper_port)
        self._mapper: Process | None = None
        self._node: Process | None = None
        self._console = self._open_console()

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@{LOOPBACK}:{self._port}/"

    @property
    def pid(self) -> int | None:
        """The process id of the Erlang machine; None while it is down."""
        return self._node.pid if self._node else None

    @property
    def running(self) -> bool:
        return self._node is not None and self._node.alive

    def start(self) -> None:
        if self.running:
            return
        if self._mapper is None:
            self._mapper = self._spawn([str(self._programs.epmd)])
        self._node = self._spawn([str(self._programs.server)], discard=self.data)
        self._node.until_it_answers(speaks_amqp, self._port, within=90)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        if self._node:
            self._node.send(signal.SIGSTOP)

    def resume(self) -> None:
        if self._node:
            self._node.send(signal.SIGCONT)

    def ctl(self, *arguments: str) -> str:
        """What `rabbitmqctl --quiet` says, asked of this node.

        Raises `ServersUnavailable` with its words where it fails."""
        if self._console is not None and (answer := self._console.ask(arguments)) is not None:
            return answer
        tool = str(self._programs.server.with_name("rabbitmqctl"))
        command = self._programs.command(self.data, [tool, "--quiet", *arguments])
        return run_tool(command, self._environment)

    def log(self) -> str:
        """The broker's log up to now."""
        return "".join(file.read_text(errors="replace") for file in sorted((self.data / "log").glob("*.log")))

    def close(self) -> None:
        """End the node and its port mapper at once. The data is not worth an orderly shutdown."""
        self.kill()
        if self._console is not None:
            self._console.close()
        if self._mapper:
            self._mapper.end(signal.SIGKILL)
            self._mapper = None

    def _open_console(self) -> Console | None:
        """What answers `ctl` without a start of Erlang for each question."""
        if (escript := self._programs.escript()) is None:
            return None
        home = {"RABBITMQ_HOME": str(escript.parent.parent)}
        return Console(console_command(escript, self.data / "rabbitmqctl"), self._environment | home)

    def _spawn(self, arguments: Sequence[str], discard: Path | None = None) -> Process:
        return Process(self._programs.command(self.data, arguments), self._environment, self._log, discard)

    def _end(self, number: signal.Signals) -> None:
        if self._node:
            self.resume()
            self._node.end(number)
            self._node = None


@contextmanager
def private_rabbitmq(programs: RabbitMQPrograms | None = None) -> Iterator[PrivateRabbitMQ]:
    """A running private node, gone without a trace at the end.

    `programs` are those of `find_rabbitmq` by default.
    Raises `ServersUnavailable` if RabbitMQ is not there or does not start.
    """
    programs = programs or find_rabbitmq()
    if programs is None:
        raise ServersUnavailable("rabbitmq-server is not installed on this machine")
    data = Path(tempfile.mkdtemp(prefix="holdfast-rabbitmq-"))
    (data / "home").mkdir()
    node = PrivateRabbitMQ(programs, data)
    try:
        node.start()
        yield node
    finally:
        node.close()
        shutil.rmtree(data, ignore_errors=True)


def _environment(base: Path, port: int, mapper_port: int) -> dict[str, str]:
    return private_environment(base / "home") | {
        "RABBITMQ_NODENAME": f"holdfast-{port}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": LOOPBACK,
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_BASE": str(base),
        "RABBITMQ_MNESIA_BASE": str(base / "data"),
        "RABBITMQ_LOG_BASE": str(base / "log"),
        "RABBITMQ_PID_FILE": str(base / "pid"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(base / "enabled_plugins"),
        # None of these exists: the machine's own configuration stays out.
        "RABBITMQ_CONF_ENV_FILE": str(base / "rabbitmq-env.conf"),
        "RABBITMQ_CONFIG_FILE": str(base / "rabbitmq.conf"),
        "RABBITMQ_CONFIG_FILES": str(base / "conf.d"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(base / "advanced.config"),
        # The start script then becomes the Erlang machine instead of watching it: the process id is the node's.
        "RUNNING_UNDER_SYSTEMD": "true",
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none",
        "ERL_EPMD_PORT": str(mapper_port),
        "ERL_EPMD_ADDRESS": LOOPBACK,
    }


def speaks_amqp(connection: socket.socket) -> bool:
    """Whether an AMQP 0-9-1 broker answers: it opens with a method frame."""
    connection.sendall(b"AMQP\x00\x00\x09\x01")
    return connection.recv(1) == b"\x01"
