"""Running a worker inside a test, and waiting for what it says happened."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from holdfast import Publisher, Settings, Worker
from holdfast.broker import Broker, Delivery, open_broker
from holdfast.consumer import Dependencies
from holdfast.events import Message
from holdfast.telemetry import Fact, Settled

F = TypeVar("F")
LIMIT = 45.0
"""Seconds any wait in a test may take before the test fails."""


def settings_for(url: str, exchange: str, claims: str = "memory://", **idempotency: Any) -> Settings:
    """Settings for a broker, with an exchange of their own; the environment is left out. Claims are kept in memory
    unless a test is about them."""
    return Settings(
        _env_file=None,  # type: ignore[call-arg]
        broker={"url": url, "exchange": exchange, "max_delay": 3600},  # type: ignore[arg-type]
        idempotency={"url": claims, **idempotency},  # type: ignore[arg-type]
        worker={"grace": 10},  # type: ignore[arg-type]
        http={"port": 0},  # type: ignore[arg-type]
    )


@dataclass
class Facts:
    """Every fact so far; `until` waits for more. Give `record` to a worker as a listener."""

    all: list[Fact] = field(default_factory=list)
    _more: asyncio.Event = field(default_factory=asyncio.Event)

    def record(self, fact: Fact) -> None:
        self.all.append(fact)
        self._more.set()

    def of(self, kind: type[F], where: Callable[[F], bool] = lambda fact: True) -> list[F]:
        return [fact for fact in self.all if isinstance(fact, kind) and where(fact)]

    async def until(self, kind: type[F], where: Callable[[F], bool] = lambda fact: True, *, count: int = 1) -> list[F]:
        """Wait until `count` facts of a kind have happened. Fails with what did happen when the limit is over."""
        found: list[F] = []
        looked_at = 0
        try:
            async with asyncio.timeout(LIMIT):
                while True:
                    fresh, looked_at = self.all[looked_at:], len(self.all)
                    found += [fact for fact in fresh if isinstance(fact, kind) and where(fact)]
                    if len(found) >= count:
                        return found
                    self._more.clear()
                    await self._more.wait()
        except TimeoutError:
            raise AssertionError(f"waited for {count} {kind.__name__}, saw only: {self.all[-20:]}") from None

    async def settled(self, outcome: str | None = None, *, count: int = 1) -> list[Settled]:
        return await self.until(Settled, lambda fact: outcome in (None, fact.outcome), count=count)


async def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for something only a server can tell, asking it again and again."""
    with suppress(TimeoutError):
        async with asyncio.timeout(LIMIT):
            while not condition():
                await asyncio.sleep(0.02)
    assert condition(), f"waited {LIMIT:g} s: {what}"


def a_worker(settings: Settings, facts: Facts, name: str = "w", **arguments: Any) -> Worker:
    """A worker whose queues belong to this test alone."""
    return Worker(f"{settings.broker.exchange}.{name}", settings=settings, listeners=[facts.record], **arguments)


@asynccontextmanager
async def running(
    *workers: Worker,
    http: bool = False,
    dependencies: Dependencies = Dependencies(),  # noqa: B008 (frozen)
) -> AsyncIterator[None]:
    """Run workers until the block ends; they are ready when it begins. With `http` they serve metrics and probes."""
    tasks = [asyncio.create_task(worker.run(http=http, dependencies=dependencies)) for worker in workers]
    try:
        for worker, task in zip(workers, tasks, strict=True):
            await until(lambda w=worker, t=task: w.health().ready or t.done(), f"{worker.name} ready")  # type: ignore[misc]
            if task.done():
                task.result()
        yield
    finally:
        for worker in workers:
            worker.stop()
        await asyncio.gather(*tasks)


@asynccontextmanager
async def a_broker(settings: Settings) -> AsyncIterator[Broker]:
    """A second pair of eyes on the broker."""
    broker = await open_broker(settings, lambda fact: None)
    try:
        yield broker
    finally:
        await broker.close()


async def take(broker: Broker, queue: str, count: int) -> list[Message]:
    """Take `count` messages off a queue and return them; fails if they do not come."""
    found: list[Delivery] = []
    enough = asyncio.Event()

    def keep(delivery: Delivery) -> None:
        found.append(delivery)
        if len(found) >= count:
            enough.set()

    consumer = await broker.consume(queue, prefetch=max(count, 1), on_delivery=keep)
    try:
        async with asyncio.timeout(LIMIT):
            await enough.wait()
        for delivery in found:
            assert await delivery.consumer.ack(delivery)
    except TimeoutError:
        raise AssertionError(f"waited for {count} messages in {queue}, got {len(found)}") from None
    finally:
        await consumer.stop(close=True)
    return [delivery.message for delivery in found]


async def depth(settings: Settings, queue: str) -> int:
    """How many messages wait in a queue, asked of the server."""
    import aiormq

    connection = await aiormq.connect(settings.broker.url.get_secret_value())
    try:
        channel = await connection.channel()
        return (await channel.queue_declare(queue, passive=True)).message_count or 0
    finally:
        await connection.close()


async def publish_all(settings: Settings, events: Iterable[Any]) -> None:
    """Publish events, each confirmed."""
    async with Publisher(settings) as publisher:
        for result in await publisher.publish_many(events):
            assert not isinstance(result, Exception), result
