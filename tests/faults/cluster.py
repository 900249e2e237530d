"""Three RabbitMQ nodes on this machine, each in a network namespace of its own, so that they can be parted.

Needs root (`ip netns`). A minority pauses, as it should where quorum queues are used.
"""

import os
import random
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from holdfast.testing.servers import RabbitMQPrograms, ServersUnavailable, find_rabbitmq
from holdfast.testing.servers.process import Process, private_environment, run_tool, until_it_answers
from holdfast.testing.servers.rabbitmq import speaks_amqp

_START = 120.0


class Member:
    """One node: its namespace, its address, its data."""

    def __init__(self, programs: RabbitMQPrograms, network: "Network", number: int, folder: Path) -> None:
        self.address = network.address(number)
        self.namespace = network.namespace(number)
        self.data = folder / f"node{number}"
        (self.data / "home").mkdir(parents=True)
        cookie = self.data / "home" / ".erlang.cookie"
        cookie.write_text("HOLDFASTFAULTS")
        cookie.chmod(0o400)
        (self.data / "rabbitmq.conf").write_text(
            "loopback_users = none\n"
            "cluster_partition_handling = pause_minority\n"
            "cluster_formation.peer_discovery_backend = classic_config\n"
            "cluster_formation.discovery_retry_limit = 3\n"  # the first one starts alone
            + "".join(f"cluster_formation.classic_config.nodes.{n} = rabbit@{network.address(n)}\n" for n in (1, 2, 3))
        )
        base = programs.sees(self.data)
        self._programs = programs
        self._environment = private_environment(base / "home") | {
            "RABBITMQ_NODENAME": f"rabbit@{self.address}",
            "RABBITMQ_USE_LONGNAME": "true",
            "RABBITMQ_NODE_IP_ADDRESS": self.address,
            "RABBITMQ_BASE": str(base),
            "RABBITMQ_MNESIA_BASE": str(base / "data"),
            "RABBITMQ_LOG_BASE": str(base / "log"),
            "RABBITMQ_PID_FILE": str(base / "pid"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(base / "enabled_plugins"),
            "RABBITMQ_CONF_ENV_FILE": str(base / "rabbitmq-env.conf"),
            "RABBITMQ_CONFIG_FILE": str(base / "rabbitmq.conf"),
            "RABBITMQ_CONFIG_FILES": str(base / "conf.d"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(base / "advanced.config"),
            "RUNNING_UNDER_SYSTEMD": "true",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none +sbwtdcpu none -kernel net_ticktime 8",
        }
        self._mapper: Process | None = None
        self._node: Process | None = None

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@{self.address}:5672/"

    @property
    def running(self) -> bool:
        return self._node is not None and self._node.alive

    def start(self) -> None:
        if self.running:
            return
        if self._mapper is None:
            self._mapper = self._spawn(str(self._programs.epmd))
        self._node = node = self._spawn(str(self._programs.server))
        log = self.data / "output.log"
        until_it_answers(speaks_amqp, (self.address, 5672), _START, lambda: node.alive, lambda: log.read_text()[-2000:])

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
        tool = str(self._programs.server.with_name("rabbitmqctl"))
        return run_tool(self._inside("--quiet", *arguments, program=tool), self._environment)

    def close(self) -> None:
        self.kill()
        if self._mapper:
            self._mapper.end(signal.SIGKILL)

    def _inside(self, *arguments: str, program: str) -> list[str]:
        return ["ip", "netns", "exec", self.namespace, *self._programs.command(self.data, [program, *arguments])]

    def _spawn(self, program: str) -> Process:
        return Process(self._inside(program=program), self._environment, self.data / "output.log")

    def _end(self, number: signal.Signals) -> None:
        if self._node:
            self.resume()
            self._node.end(number)
            self._node = None


class Network:
    """A bridge and three namespaces with an address each."""

    def __init__(self) -> None:
        self._key = random.randint(0, 99)
        self._prefix = f"10.{random.randint(150, 250)}.{random.randint(0, 250)}"
        self._bridge = f"hfbr{self._key}"

    def address(self, number: int) -> str:
        return f"{self._prefix}.{number}"

    def namespace(self, number: int) -> str:
        return f"hf{self._key}n{number}"

    def build(self) -> None:
        _ip("link", "add", self._bridge, "type", "bridge")
        _ip("addr", "add", f"{self._prefix}.254/24", "dev", self._bridge)
        _ip("link", "set", self._bridge, "up")
        for number in (1, 2, 3):
            space, outer = self.namespace(number), f"hf{self._key}v{number}"
            _ip("netns", "add", space)
            _ip("link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", space)
            _ip("link", "set", outer, "master", self._bridge, "up")
            _ip("-n", space, "addr", "add", f"{self.address(number)}/24", "dev", "eth0")
            _ip("-n", space, "link", "set", "eth0", "up")
            _ip("-n", space, "link", "set", "lo", "up")

    def part(self, number: int) -> None:
        """Let nothing pass between one node and the other two. Clients still reach all of them."""
        for other in {1, 2, 3} - {number}:
            _ip("-n", self.namespace(number), "route", "add", "blackhole", f"{self.address(other)}/32")

    def mend(self) -> None:
        for number in (1, 2, 3):
            for other in {1, 2, 3} - {number}:
                route = ("-n", self.namespace(number), "route", "del", "blackhole", f"{self.address(other)}/32")
                subprocess.run(["ip", *route], check=False, capture_output=True)

    def remove(self) -> None:
        for number in (1, 2, 3):
            subprocess.run(["ip", "netns", "del", self.namespace(number)], check=False, capture_output=True)
        subprocess.run(["ip", "link", "del", self._bridge], check=False, capture_output=True)


class Cluster:
    """Three nodes as one broker; what is asked of it is asked of the first, or of all."""

    def __init__(self, members: list[Member], network: Network) -> None:
        self.members = members
        self.network = network

    @property
    def url(self) -> str:
        return self.members[0].url

    @property
    def urls(self) -> list[str]:
        """Two for workers, one for the publisher."""
        return [member.url for member in self.members]

    @property
    def running(self) -> bool:
        return all(member.running for member in self.members)

    def start(self) -> None:
        self.network.mend()
        with ThreadPoolExecutor(3) as threads:
            list(threads.map(Member.start, self.members))

    def stop(self) -> None:
        for member in self.members:
            member.stop()

    def kill(self) -> None:
        for member in self.members:
            member.kill()

    def pause(self) -> None:
        for member in self.members:
            member.pause()

    def resume(self) -> None:
        for member in self.members:
            member.resume()

    def ctl(self, *arguments: str) -> str:
        return self.members[0].ctl(*arguments)


@contextmanager
def a_cluster(programs: RabbitMQPrograms | None = None) -> Iterator[Cluster]:
    """A running cluster of the RabbitMQ on this machine, or of another release. Raises `ServersUnavailable`."""
    programs = programs or find_rabbitmq()
    if programs is None or os.geteuid() != 0 or shutil.which("ip") is None:
        raise ServersUnavailable("a cluster needs rabbitmq-server, root and iproute2")
    folder, network = Path(tempfile.mkdtemp(prefix="holdfast-cluster-")), Network()
    members: list[Member] = []
    try:
        network.build()
        members = [Member(programs, network, number, folder) for number in (1, 2, 3)]
        cluster = Cluster(members, network)
        members[0].start()  # the others find it
        cluster.start()
        yield cluster
    finally:
        for member in members:
            member.close()
        network.remove()
        shutil.rmtree(folder, ignore_errors=True)


def _ip(*words: str) -> None:
    ended = subprocess.run(["ip", *words], check=False, capture_output=True, text=True)
    if ended.returncode != 0:
        raise ServersUnavailable(f"ip {' '.join(words)}: {ended.stderr.strip()}")
