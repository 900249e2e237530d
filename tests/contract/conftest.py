"""The contract suite runs once for each broker there is."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from bench import Bench, in_memory, on_rabbitmq

from holdfast.broker import Broker


@pytest.fixture(params=["memory", "amqp", "amqp-plain"])
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    if request.param == "memory":
        at = in_memory()
    else:
        at = on_rabbitmq(request.getfixturevalue("rabbitmq_url"), "plain" if "plain" in request.param else "fast")
    async with at as server, AsyncExitStack() as stack:
        bench = Bench(server, stack)
        bench.broker = await bench.open()
        stack.push_async_callback(bench.clean_up)
        yield bench


@pytest.fixture
def broker(bench: Bench) -> Broker:
    return bench.broker
