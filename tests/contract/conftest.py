"""The contract suites run once for each broker there is, and for each kind of database."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from bench import Bench, in_memory, on_rabbitmq
from databases import Bank, Kind, a_bank, kinds

from holdfast.broker import Broker


@pytest.fixture(params=["memory", pytest.param("amqp", marks=pytest.mark.server)])
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    at = in_memory() if request.param == "memory" else on_rabbitmq(request.getfixturevalue("rabbitmq_url"))
    async with at as server, AsyncExitStack() as stack:
        bench = Bench(server, stack)
        bench.broker = await bench.open()
        stack.push_async_callback(bench.clean_up)
        yield bench


@pytest.fixture
def broker(bench: Bench) -> Broker:
    return bench.broker


@pytest.fixture(params=kinds())
async def bank(request: pytest.FixtureRequest, unique: str, tmp_path: Path) -> AsyncIterator[Bank]:
    """A database of each kind, with a schema of this test's own."""
    kind: Kind = request.param
    url = request.getfixturevalue(f"{kind.server}_url") if kind.server else ""
    async with a_bank(kind, url, unique, tmp_path) as bank:
        yield bank
