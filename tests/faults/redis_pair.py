"""Two servers of Redis, one the other's replica, watched by a Sentinel: as one claim store that may fail over."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from redises import LOOPBACK, a_redis, ask
from waiting import blocking, eventually

from holdfast.testing.servers import Node, private_redis

_NAME = "claims"
_WITHIN = 30.0  # seconds a failover may take


class Pair:
    """See `holdfast.testing.servers.Node`; what is done is done to the server that is master."""

    def __init__(self, nodes: tuple[Node, Node], sentinel: int) -> None:
        self._nodes, self._sentinel = nodes, sentinel

    @property
    def url(self) -> str:
        return f"redis+sentinel://{LOOPBACK}:{self._sentinel}/{_NAME}/0"

    @property
    def master(self) -> Node:
        """The one the Sentinel names."""
        port = ask(self._sentinel, "sentinel", "get-master-addr-by-name", _NAME).split()[-1]
        return next(node for node in self._nodes if f":{port}/" in node.url)

    @property
    def running(self) -> bool:
        return all(node.running for node in self._nodes)

    def start(self) -> None:
        for node in self._nodes:
            node.start()

    def stop(self) -> None:
        self.master.stop()

    def kill(self) -> None:
        """Kill the master, and return when the other has its place."""
        self._until_replicated()
        master = self.master
        master.kill()
        blocking(eventually(lambda: self.master is not master, within=_WITHIN, every=0.05))

    def pause(self) -> None:
        self.master.pause()

    def resume(self) -> None:
        for node in self._nodes:
            node.resume()

    def ctl(self, *arguments: str) -> str:
        return self.master.ctl(*arguments)

    def _until_replicated(self) -> None:
        """Wait until the Sentinel knows a replica that is as it should be: without one it cannot fail over."""

        def is_replicated() -> bool:
            replication = self.master.ctl("info", "replication")
            return "slave0:" in replication and "state=online" in replication

        def is_seen() -> bool:
            return "num-slaves\n1" in ask(self._sentinel, "sentinel", "master", _NAME)

        blocking(eventually(is_replicated, within=_WITHIN, every=0.05))
        blocking(eventually(is_seen, within=_WITHIN, every=0.05))


@contextmanager
def a_pair() -> Iterator[Pair]:
    """A running pair. Raises `ServersUnavailable` if Redis is not installed or does not start."""
    with private_redis() as first, private_redis() as second, tempfile.TemporaryDirectory() as folder:
        port = first.url.rpartition(":")[2].split("/")[0]
        second.ctl("replicaof", LOOPBACK, port)
        config = Path(folder) / "sentinel.conf"
        watched = (f"monitor {_NAME} {LOOPBACK} {port} 1", f"down-after-milliseconds {_NAME} 500")
        config.write_text("".join(f"sentinel {line}\n" for line in watched))
        with a_redis(Path(folder), str(config), "--sentinel") as sentinel:
            yield Pair((first, second), sentinel)
