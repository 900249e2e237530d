"""Dead letters to work with: a worker whose handler fails until it is mended, and the tools under test."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from running import a_broker, a_worker, running
from waiting import Facts, Tally

from holdfast import Context, Event, Publisher, Retry, Settings, Worker
from holdfast.broker import Broker
from holdfast.dead_letters import DeadLetters, Letter, Operation, Pace, Selection

QUICK = Pace(wait=20)


class CardDeclined(Exception):
    pass


class Charge:
    """What the handler of the tests does: it fails until `mended`, and keeps count of what it did. Where `lets` is a
    number, it lets so many orders through and holds the others until `go`."""

    def __init__(self) -> None:
        self.mended = False
        self.lets: int | None = None
        self.go = asyncio.Event()
        self.runs: Counter[str] = Counter()
        self.effects: Tally[str] = Tally()
        self.attempts: list[int] = []

    def __call__(self, order: str, attempt: int) -> None:
        self.runs[order] += 1
        self.attempts.append(attempt)
        if not self.mended:
            raise CardDeclined(f"order {order}")
        self.effects[order] += 1


class Morgue:
    """A queue with a worker that fills its dead-letter queue."""

    def __init__(self, settings: Settings, unique: str) -> None:
        self.settings = settings
        self.charge = Charge()
        self.facts = Facts()
        self.siblings: Counter[str] = Counter()
        self.Order = self._event(unique)
        self.queue = f"{settings.broker.exchange}.w.charge"
        self.dead = f"{self.queue}.dead"

    @staticmethod
    def _event(unique: str) -> Any:
        class Order(Event, type=f"{unique}.order"):
            order: str

        return Order

    def worker(self, attempts: int = 1) -> Worker:
        worker = a_worker(self.settings, self.facts)

        @worker.handler(self.Order, name="charge", retry=Retry(attempts=attempts))
        async def charge(event: Any, ctx: Context) -> None:
            if self.charge.lets is not None and sum(self.charge.effects.values()) >= self.charge.lets:
                await self.charge.go.wait()
            self.charge(event.order, ctx.attempt)

        @worker.handler(self.Order, name="sibling")
        async def sibling(event: Any) -> None:
            self.siblings[event.order] += 1

        return worker

    async def publish(self, *orders: str) -> None:
        async with Publisher(self.settings) as publisher:
            await publisher.publish_many([self.Order(order=order) for order in orders])

    async def fill(self, *orders: str) -> None:
        """Publish orders and return once each is dead."""
        async with running(self.worker()):
            await self.publish(*orders)
            await self.facts.settled("dead_lettered", count=len(orders))
        self.facts.all.clear()


@asynccontextmanager
async def a_desk(settings: Settings, folder: Path, broker: Broker | None = None) -> AsyncIterator[DeadLetters]:
    """The tools, with their files in `folder`."""
    group = settings.dead_letters.model_copy(update={"folder": str(folder)})
    own = settings.model_copy(update={"dead_letters": group})
    if broker is not None:
        desk = DeadLetters(own, broker)
        yield desk
        desk.close()
        return
    async with a_broker(own) as opened:
        desk = DeadLetters(own, opened)
        try:
            yield desk
        finally:
            desk.close()


async def contents(desk: DeadLetters, queue: str) -> list[Letter]:
    """The letters in a queue now."""
    return list((await desk.read(queue)).letters(Selection()))


async def replay(desk: DeadLetters, queue: str, pace: Pace = QUICK, **options: Any) -> Operation:
    """Replay all that is in the queue now."""
    await desk.read(queue)
    return await desk.work(desk.replay(queue, Selection(), **options), pace).run()
