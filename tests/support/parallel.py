"""Tests side by side (`pytest -n 4 --dist loadgroup`): the servers are shared, each process has a virtual host and a
database of its own, and tests that need a server of their own kind or break one stay together.

A plugin of pytest; tests/conftest.py names it. Without `-n` it does nothing.
"""

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from releases import rabbitmq_server

from holdfast.testing import servers
from holdfast.testing.servers import Given, Server

NEEDS_NO_SERVER = frozenset({"unit", "architecture", "fuzz"})
"""The folders of tests/ whose tests ask for no server. In tests/contract those that do are marked `server`."""

TOGETHER = {"runs": "scenarios", "rabbit": "rabbit", "rabbitmq_node": "nodes", "redis_node": "nodes"}
"""Fixtures that are dear, and the group of the tests that ask for them: one process runs a group."""

_VARIABLES = "holdfast_servers"
_OPENED, _SERVERS = pytest.StashKey[ExitStack](), pytest.StashKey[tuple[Server, Server]]()


def pytest_configure(config: pytest.Config) -> None:
    """In a process of xdist: name its servers to the fixtures `rabbitmq_url` and `redis_url`."""
    os.environ.update(getattr(config, "workerinput", {}).get(_VARIABLES, {}))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Before a process starts: start the servers, once, and make a virtual host and a database for this process."""
    folders = {Path(argument.partition("::")[0]).name for argument in node.config.args}
    if folders <= NEEDS_NO_SERVER or node.config.option.markexpr == "not server":
        return
    stash = node.config.stash
    if _SERVERS not in stash:
        stash[_OPENED] = opened = ExitStack()
        stash[_SERVERS] = tuple(map(opened.enter_context, (rabbitmq_server(), servers.redis_server())))
    number = int(node.gateway.id.removeprefix("gw"))
    rabbitmq, redis = stash[_SERVERS]
    node.workerinput[_VARIABLES] = {
        servers.RABBITMQ_URL: _virtual_host(rabbitmq, node.gateway.id),
        servers.REDIS_URL: _database(redis, number + 1),
    }


def pytest_unconfigure(config: pytest.Config) -> None:
    if (opened := config.stash.get(_OPENED, None)) is not None:
        opened.close()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In a process of xdist: put tests into groups, and the longest group first, so that no process is left with it."""
    if not hasattr(config, "workerinput"):
        return
    for item in items:
        for group in _groups(item):
            item.add_marker(pytest.mark.xdist_group(group))
    order = [*dict.fromkeys(TOGETHER.values()), "module", ""]
    items.sort(key=lambda item: order.index(next(iter(_kinds(item)), "")))


def _kinds(item: pytest.Item) -> list[str]:
    names = getattr(item, "fixturenames", ())
    groups = [group for fixture, group in TOGETHER.items() if fixture in names]
    definitions = getattr(item, "_fixtureinfo").name2fixturedefs  # noqa: B009 (pytest names no scope in public)
    has_own = any(one.scope == "module" for fixture in names for one in definitions.get(fixture, ()))
    return groups or ["module"] * has_own


def _groups(item: pytest.Item) -> list[str]:
    return [item.nodeid.partition("::")[0] if kind == "module" else kind for kind in _kinds(item)[:1]]


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
