"""A private RabbitMQ node: own ports, own data, own cookie, own port mapper; it leaves nothing behind."""

import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from .node import ServersUnavailable
from .process import LOOPBACK, PrivateNode, Process, data_folder, free_port, private_environment, program, run_tool

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

    @property
    def plugins(self) -> Path:
        """The folder with RabbitMQ's own modules and those of its plugins."""
        return self.server.resolve().parent.parent / "plugins"

    def modules(self) -> list[Path]:
        """The compiled modules of RabbitMQ, then those of Erlang; none where RabbitMQ's are kept in another way."""
        own, erlang = [*self.plugins.glob("*/ebin/*.beam")], self.epmd.resolve().parent.parent.parent
        return [*own, *erlang.glob("lib/*/ebin/*.beam")] if own else []


def find_rabbitmq() -> RabbitMQPrograms | None:
    """RabbitMQ as it is installed on this machine; None where it is not."""
    plain = Path("/", _PLAIN_SCRIPTS, "rabbitmq-server")
    server = plain if plain.exists() else program("rabbitmq-server")
    epmd = program("epmd") or next(Path("/").glob("usr/*lib/erlang/erts-*/bin/epmd"), None)
    return RabbitMQPrograms(server, epmd) if server and epmd else None


class PrivateRabbitMQ(PrivateNode):
    """A node of our own, whose `start` takes some seconds. `pid` is the process id of the Erlang machine."""

    def __init__(self, programs: RabbitMQPrograms, data: Path) -> None:
        super().__init__(data)
        self._programs = programs
        self._environment = _environment(programs.sees(data), self._port) | _linked(programs, data / "linked")
        self._mapper: Process | None = None

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@{LOOPBACK}:{self._port}/"

    def ctl(self, *arguments: str) -> str:
        """What `rabbitmqctl --quiet` says, asked of this node.

        Raises `ServersUnavailable` with its words where it fails."""
        tool = str(self._programs.server.with_name("rabbitmqctl"))
        command = self._programs.command(self.data, [tool, "--quiet", *arguments])
        return run_tool(command, self._environment)

    def log(self) -> str:
        """The broker's log up to now."""
        return "".join(file.read_text(errors="replace") for file in sorted((self.data / "log").glob("*.log")))

    def close(self) -> None:
        """End the node and its port mapper at once. The data is not worth an orderly shutdown."""
        super().close()
        if self._mapper:
            self._mapper.end(signal.SIGKILL)
            self._mapper = None

    def _launch(self) -> Process:
        if self._mapper is None:
            self._mapper = self._spawn([str(self._programs.epmd)])
        return self._spawn([str(self._programs.server)], discard=self.data)

    def _await(self, process: Process) -> None:
        process.until_it_answers(speaks_amqp, self._port, within=90)

    def _spawn(self, arguments: Sequence[str], discard: Path | None = None) -> Process:
        return Process(self._programs.command(self.data, arguments), self._environment, self._log, discard)


@contextmanager
def private_rabbitmq(
    programs: RabbitMQPrograms | None = None, node_class: type[PrivateRabbitMQ] = PrivateRabbitMQ
) -> Iterator[PrivateRabbitMQ]:
    """A running private node, gone without a trace at the end.

    `programs` are those of `find_rabbitmq` by default.
    Raises `ServersUnavailable` if RabbitMQ is not there or does not start.
    """
    programs = programs or find_rabbitmq()
    if programs is None:
        raise ServersUnavailable("rabbitmq-server is not installed on this machine")
    with data_folder("holdfast-rabbitmq-") as data:
        (data / "home").mkdir()
        with closing(node_class(programs, data)) as node:
            node.start()
            yield node


def _linked(programs: RabbitMQPrograms, folder: Path) -> dict[str, str]:
    """Link all modules in one folder; return the variables that have a node look for them there first.

    A node loads a thousand modules, and Erlang looks for each in some eighty folders: more than half of its start.
    """
    modules = programs.modules()
    if not modules:
        return {}
    ebin = folder / "modules" / "ebin"
    ebin.mkdir(parents=True)
    for module in modules:
        with suppress(FileExistsError):  # Erlang takes the first of a name, too
            (ebin / module.name).symlink_to(module)
    # RabbitMQ puts its plugins in front of the code path, those of the first folder foremost.
    return {"RABBITMQ_SERVER_CODE_PATH": str(ebin), "RABBITMQ_PLUGINS_DIR": f"{folder}:{programs.plugins}"}


def _environment(base: Path, port: int) -> dict[str, str]:
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
        # Not bound to cores: the first schedulers of several nodes would share one core, and leave another idle.
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 +stbt u +sbwt none +sbwtdcpu none +sbwtdio none",
        "ERL_EPMD_PORT": str(free_port()),
        "ERL_EPMD_ADDRESS": LOOPBACK,
    }


def speaks_amqp(connection: socket.socket) -> bool:
    """Whether an AMQP 0-9-1 broker answers: it opens with a method frame."""
    connection.sendall(b"AMQP\x00\x00\x09\x01")
    return connection.recv(1) == b"\x01"
