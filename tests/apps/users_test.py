"""A user's own test file: one test that passes and one that fails in its handler (the pytest plugin)."""

import pytest

from holdfast import Event, Worker
from holdfast.testing import Harness


class Placed(Event, type="plugin.placed"):
    order_id: str


worker_of_the_shop = Worker("shop")


@worker_of_the_shop.handler(Placed)
async def charge(event: Placed) -> None:
    assert event.order_id != "bad", "no such order"


@pytest.fixture
def worker() -> Worker:
    return worker_of_the_shop


@pytest.mark.asyncio
async def test_good(harness: Harness) -> None:
    await harness.publish(Placed(order_id="good"))
    await harness.settle()
    assert len(harness.handled) == 1


@pytest.mark.asyncio
async def test_bad(harness: Harness) -> None:
    await harness.publish(Placed(order_id="bad"))
    await harness.settle()
