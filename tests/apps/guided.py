"""The worker of a guide, and one order that is published to it: each of its handlers handles an event."""

import asyncio
from importlib import import_module
from typing import Any

from holdfast import Publisher
from holdfast.telemetry import Fact, Settled

GUIDE = "shop"

guide: Any = import_module(GUIDE)


async def main() -> None:
    names = [spec.name for spec in guide.worker.handlers]
    settled = list[Settled]()
    ended = asyncio.Event()

    def listen(fact: Fact) -> None:
        if isinstance(fact, Settled):
            settled.append(fact)
            if fact.outcome != "handled" or len(settled) == len(names):
                ended.set()

    guide.worker.configure(listeners=[listen])
    running = asyncio.create_task(guide.worker.run())
    while not guide.worker.health().ready:
        await asyncio.sleep(0.01)
    async with Publisher(source="shop") as publisher:
        await publisher.publish(guide.OrderCreated(order_id="o-1", cents=950))
    await ended.wait()
    guide.worker.stop()
    await running
    outcomes = [(fact.handler, fact.outcome, fact.error) for fact in settled]
    assert outcomes == [(name, "handled", None) for name in names], outcomes


asyncio.run(main())
