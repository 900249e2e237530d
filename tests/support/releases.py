"""RabbitMQ of other releases, each in a folder with a Debian of its own, as scripts/brokers.py makes them.

A plugin of pytest, too (tests/conftest.py names it): where a folder is named, its release is the one under test.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from console import ConsoleRabbitMQ

from holdfast.testing import servers
from holdfast.testing.servers import Given, Node, RabbitMQPrograms, Server, ServersUnavailable, private_rabbitmq

FOLDER = "HOLDFAST_TEST_RABBITMQ_ROOT"
"""The variable that names the folder."""

_SCRIPTS = "usr/lib/rabbitmq/bin"

# The node sees its data as /mnt. The mounts live in a namespace of the process alone, so they are gone when it is.
# RabbitMQ asks for the address of `localhost`, which a bare folder cannot tell.
_IN_FOLDER = """
set -e
root=$1 data=$2
shift 2
mount --bind /proc "$root/proc"
mount --bind "$data" "$root/mnt"
[ -s "$root/etc/hosts" ] || echo '127.0.0.1 localhost' > "$root/etc/hosts"
exec chroot "$root" "$@"
"""


@dataclass(frozen=True, slots=True)
class Release(RabbitMQPrograms):
    """RabbitMQ's programs in a folder that `debootstrap` made. `server` and `epmd` are paths inside it."""

    root: Path

    def command(self, data: Path, arguments: Sequence[str]) -> list[str]:
        inside = ["sh", "-c", _IN_FOLDER, "in-folder", str(self.root), str(data), *arguments]
        return ["unshare", "--mount", "--propagation", "private", *inside]

    def sees(self, data: Path) -> Path:
        return Path("/mnt")

    def modules(self) -> list[Path]:
        return []  # their paths would have to be those inside the folder


def release_in(folder: Path) -> Release:
    """Return the release in a folder. Raises `ServersUnavailable` where there is none, or no right to enter it."""
    if not (folder / _SCRIPTS / "rabbitmq-server").exists():
        raise ServersUnavailable(f"there is no RabbitMQ in {folder} (expected {_SCRIPTS}/rabbitmq-server)")
    if os.geteuid() != 0:
        raise ServersUnavailable(f"RabbitMQ in the folder {folder} can be started by root only (chroot)")
    return Release(Path("/", _SCRIPTS, "rabbitmq-server"), Path("/usr/bin/epmd"), folder)


@contextmanager
def rabbitmq_node() -> Iterator[Node]:
    """A node of the release in the folder that is named, or as users of Holdfast get one."""
    folder = os.environ.get(FOLDER)
    programs = release_in(Path(folder)) if folder else servers.find_rabbitmq()
    if programs is None or (not folder and servers.this_machine(os.environ).docker):
        with servers.rabbitmq_node() as node:
            yield node
    else:
        with private_rabbitmq(programs, ConsoleRabbitMQ) as private:
            yield private


@contextmanager
def rabbitmq_server() -> Iterator[Server]:
    """The server that is named, or else `rabbitmq_node`."""
    if url := os.environ.get(servers.RABBITMQ_URL):
        yield Given(url)
        return
    with rabbitmq_node() as node:
        yield node


@pytest.fixture(scope="session")
def _rabbitmq_server() -> Iterator[Server]:
    with rabbitmq_server() as server:
        yield server


@pytest.fixture(scope="session")
def _rabbitmq_node(_rabbitmq_server: Server) -> Iterator[Node]:
    if not isinstance(_rabbitmq_server, Given):
        yield _rabbitmq_server
        return
    with rabbitmq_node() as node:
        yield node
