"""Running a worker inside a test."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from waiting import Arrivals, Facts, eventually

from holdfast import Publisher, Settings, Worker
from holdfast.broker import Broker, Delivery, open_broker
from holdfast.consumer import Dependencies
from holdfast.events import Message


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


async def until_started(worker: Worker, run: "asyncio.Task[int]") -> None:
    """Wait until a worker is ready; raises what its run raised."""
    await eventually(lambda: worker.health().ready or run.done())
    if run.done():
        run.result()


async def until_ready(worker: Worker, *, ready: bool = True) -> None:
    """Wait until a worker is ready, or is not: its health is asked, as its probe is."""
    await eventually(lambda: worker.health().ready, ready)


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
            await until_started(worker, task)
        yield
    finally:
        for worker in workers:
            worker.stop()
        await asyncio.gather(*tasks)


@asynccontextmanager
async def started(worker: Worker) -> AsyncIterator[asyncio.Task[int]]:
    """Run a worker that need not become ready until the block ends."""
    task = asyncio.create_task(worker.run())
    try:
        yield task
    finally:
        worker.stop()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def a_broker(settings: Settings, facts: Facts | None = None) -> AsyncIterator[Broker]:
    """A second pair of eyes on the broker."""
    broker = await open_broker(settings, facts or Facts())
    try:
        yield broker
    finally:
        await broker.close()


async def take(broker: Broker, queue: str, count: int) -> list[Message]:
    """Take `count` messages off a queue and return them; fails if they do not come."""
    inbox: Arrivals[Delivery] = Arrivals()
    consumer = await broker.consume(queue, prefetch=max(count, 1), on_delivery=inbox)
    try:
        await inbox.until_true(lambda: len(inbox.all) >= count, lambda: f"{len(inbox.all)} of {count} from {queue}")
        for delivery in inbox.all:
            assert await delivery.consumer.ack(delivery)
    finally:
        await consumer.stop(close=True)
    return [delivery.message for delivery in inbox.all]


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
