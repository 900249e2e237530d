"""The contract suites of brokers run once for each broker there is."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from bench import Bench, in_memory, on_rabbitmq

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
