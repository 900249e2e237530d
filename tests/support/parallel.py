"""Tests side by side (`pytest -n 6`): the servers are shared, and each process has a virtual host and a database of its
own.

A plugin of pytest; tests/conftest.py names it. Without `-n` it does nothing.
"""

import gc
import os
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from commands import FORKS, forks
from releases import rabbitmq_server

from holdfast.testing import servers
from holdfast.testing.servers import Given, Server

NEEDS_NO_SERVER = frozenset({"unit", "architecture", "fuzz"})
"""The folders of tests/ whose tests ask for no server. In tests/contract those that do are marked `server`."""

TOGETHER = frozenset(
    {
        "test_scenarios.py",
        "test_redis_users.py",
        "test_shape.py",
        "test_alarms.py",
        "test_packaging.py",
        "test_hops.py",
    }
)
"""The modules whose fixtures are dear: one process runs all tests of each."""

NODES = ("rabbitmq_node", "rabbit", "postgres_node")
"""Fixtures that start a server for the session, in seconds of CPU: one process runs all modules that name one."""

SOONER = {"integration": 0.8, "faults": 0.8}
"""The folders whose tests take longest: they have begun when so much of the others has, so that none is left alone."""

_VARIABLES = "holdfast_servers"
_TICK = 600_000  # milliseconds after which a quorum queue looks at itself; RabbitMQ's 5,000 add up
_OPENED, _SERVERS = pytest.StashKey[ExitStack](), pytest.StashKey[tuple[Server, Server, Server, str]]()


def pytest_configure(config: pytest.Config) -> None:
    """In a process of xdist: name its servers to the fixtures `rabbitmq_url`, `redis_url` and `postgres_url`."""
    os.environ.update(getattr(config, "workerinput", {}).get(_VARIABLES, {}))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Before a process starts: start the servers, once, and make a virtual host and a database for this process."""
    folders = {Path(argument.partition("::")[0]).name for argument in node.config.args}
    if folders <= NEEDS_NO_SERVER or node.config.option.markexpr == "not server":
        return
    stash = node.config.stash
    if _SERVERS not in stash:
        stash[_OPENED] = ExitStack()
        stash[_SERVERS] = _open(stash[_OPENED])
    number = int(node.gateway.id.removeprefix("gw"))
    rabbitmq, redis, postgres, socket = stash[_SERVERS]
    node.workerinput[_VARIABLES] = {
        servers.RABBITMQ_URL: _virtual_host(rabbitmq, node.gateway.id),
        servers.REDIS_URL: _database(redis, number + 1),
        servers.POSTGRES_URL: _named_database(postgres, node.gateway.id),
        FORKS: socket,
    }


def pytest_unconfigure(config: pytest.Config) -> None:
    if (opened := config.stash.get(_OPENED, None)) is not None:
        opened.close()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In a process of xdist: mix the tests of all folders, since those of some wait and those of others compute."""
    if not hasattr(config, "workerinput"):
        return
    folders: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        folders[item.path.parent.name].append(item)
    moments = {
        item: SOONER.get(folder, 1.0) * number / len(those)
        for folder, those in folders.items()
        for number, item in enumerate(those)
    }
    items.sort(key=moments.__getitem__)


def pytest_collection_finish(session: pytest.Session) -> None:
    """In a process of xdist: leave what was imported and collected out of later collections of garbage."""
    if hasattr(session.config, "workerinput"):
        gc.collect()
        gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Hand out the tests of TOGETHER by module, those of NODES by fixture, the largest first, all others one by one.

    `--dist loadgroup` would do it by marks, and has no effect with xdist 3.8 on pytest 9.2.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            module = nodeid.partition("::")[0]
            return module if Path(module).name in TOGETHER else _node_of(config.rootpath / module) or nodeid

    return Scheduling(config, log)


def _open(opened: ExitStack) -> tuple[Server, Server, Server, str]:
    """Start the servers, and the process that forks commands, all at once."""
    with ThreadPoolExecutor() as pool:
        rabbitmq = pool.submit(opened.enter_context, rabbitmq_server())
        redis = pool.submit(opened.enter_context, servers.redis_server())
        postgres = pool.submit(opened.enter_context, servers.postgres_server())
        forking = pool.submit(opened.enter_context, forks())
        broker = rabbitmq.result()
        if not isinstance(broker, Given):
            broker.ctl("eval", f"application:set_env(rabbit, quorum_tick_interval, {_TICK}).")
        return broker, redis.result(), postgres.result(), forking.result()


@cache
def _node_of(module: Path) -> str | None:
    text = module.read_text()
    return next((fixture for fixture in NODES if f"{fixture}: " in text), None)


def _virtual_host(server: Server, name: str) -> str:
    """The URL of a virtual host of this name. A server that is not ours is used as it is named."""
    if isinstance(server, Given):
        return server.url
    server.ctl("add_vhost", name)
    server.ctl("set_permissions", "-p", name, "guest", ".*", ".*", ".*")
    return f"{server.url.rstrip('/')}/{name}"


def _database(server: Server, number: int) -> str:
    """The URL of a database of this number. A server that is not ours is used as it is named."""
    return server.url if isinstance(server, Given) else f"{server.url.rpartition('/')[0]}/{number}"


def _named_database(server: Server, name: str) -> str:
    """The URL of a database of this name. A server that is not ours is used as it is named."""
    if isinstance(server, Given):
        return server.url
    server.ctl(f"create database {name}")
    return f"{server.url.rpartition('/')[0]}/{name}"
