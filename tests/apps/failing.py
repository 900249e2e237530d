"""A worker in one process with its broker: it publishes an event, whose handler fails, and stops."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from holdfast import Event, Publisher, Retry, Worker
from holdfast.telemetry import Fact, Settled

_settled = asyncio.Event()


class Ordered(Event, type="failing.ordered"):
    order: str


def listen(fact: Fact) -> None:
    if isinstance(fact, Settled):
        _settled.set()


async def publish_and_stop(worker: Worker) -> None:
    while not worker.health().ready:
        await asyncio.sleep(0.01)
    async with Publisher(worker.settings) as publisher:
        await publisher.publish(Ordered(order="o-1"))
    await _settled.wait()
    worker.stop()


@asynccontextmanager
async def lifespan(worker: Worker) -> AsyncIterator[None]:
    publishing = asyncio.create_task(publish_and_stop(worker))
    yield
    await publishing


worker = Worker("failing", lifespan=lifespan, listeners=[listen])


@worker.handler(Ordered, retry=Retry(attempts=1))
async def charge(event: Ordered) -> None:
    raise ValueError("the card was declined")
