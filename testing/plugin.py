"""The pytest plugin: a harness for the worker under test, and RabbitMQ, Redis and PostgreSQL for tests that need them.

A test that needs a server is never skipped: where none can be had it fails, and says what to install.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress

import pytest

from ..consumer import Worker
from . import servers
from .harness import Harness
from .servers import Given, Node, Server, ServersUnavailable


@pytest.fixture(scope="session")
def rabbitmq_url(_rabbitmq_server: Server) -> str:
    """The URL of a RabbitMQ: the one that was named, or else a node of our own for the whole session."""
    return _rabbitmq_server.url


@pytest.fixture(scope="session")
def redis_url(_redis_server: Server) -> str:
    """The URL of a Redis: the one that was named, or else a server of our own for the whole session."""
    return _redis_server.url


@pytest.fixture(scope="session")
def postgres_url(_postgres_server: Server) -> str:
    """The URL of a PostgreSQL: the one that was named, or else a server of our own for the whole session."""
    return _postgres_server.url


@pytest.fixture
def rabbitmq_node(_rabbitmq_node: Node) -> Iterator[Node]:
    """A RabbitMQ node to stop, kill and freeze at will; after the test it runs again. One for the whole session."""
    yield _rabbitmq_node
    _mend(_rabbitmq_node)


@pytest.fixture
def redis_node(_redis_node: Node) -> Iterator[Node]:
    """A Redis server to stop, kill and freeze at will; after the test it runs again. One for the whole session."""
    yield _redis_node
    _mend(_redis_node)


@pytest.fixture
def postgres_node(_postgres_node: Node) -> Iterator[Node]:
    """A PostgreSQL server to stop, kill and freeze at will; after the test it runs again. One for the whole session."""
    yield _postgres_node
    _mend(_postgres_node)


@pytest.fixture(scope="session")
def _rabbitmq_server() -> Iterator[Server]:
    with _or_fail(), servers.rabbitmq_server() as server:
        yield server


@pytest.fixture(scope="session")
def _redis_server() -> Iterator[Server]:
    with _or_fail(), servers.redis_server() as server:
        yield server


@pytest.fixture(scope="session")
def _postgres_server() -> Iterator[Server]:
    with _or_fail(), servers.postgres_server() as server:
        yield server


@pytest.fixture(scope="session")
def _rabbitmq_node(_rabbitmq_server: Server) -> Iterator[Node]:
    if not isinstance(_rabbitmq_server, Given):
        yield _rabbitmq_server
        return
    with _or_fail(), servers.rabbitmq_node() as node:
        yield node


@pytest.fixture(scope="session")
def _redis_node(_redis_server: Server) -> Iterator[Node]:
    if not isinstance(_redis_server, Given):
        yield _redis_server
        return
    with _or_fail(), servers.redis_node() as node:
        yield node


@pytest.fixture(scope="session")
def _postgres_node(_postgres_server: Server) -> Iterator[Node]:
    if not isinstance(_postgres_server, Given):
        yield _postgres_server
        return
    with _or_fail(), servers.postgres_node() as node:
        yield node


async def _harness(worker: Worker) -> AsyncIterator[Harness]:
    """A `Harness` around what your own fixture `worker` gives, on the loop of the test. Needs pytest-asyncio."""
    async with Harness(worker) as running:
        yield running


with suppress(ImportError):  # tests on another runner open their harnesses themselves
    import pytest_asyncio

    harness = pytest_asyncio.fixture(name="harness")(_harness)


@contextmanager
def _or_fail() -> Iterator[None]:
    try:
        yield
    except ServersUnavailable as reason:
        pytest.fail(str(reason), pytrace=False)


def _mend(node: Node) -> None:
    node.resume()
    node.start()
