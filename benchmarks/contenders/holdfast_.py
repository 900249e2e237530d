"""Holdfast as it ships: metrics and probes served, event ids bound, retries and dead letters on, its usual log."""

import asyncio
import hashlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

from work import Job, Stopwatch, Tally, an_order, run, tell

from holdfast import Context, Event, Publisher, Settings, Worker
from holdfast.config import LogSettings
from holdfast.telemetry import configure_logging


class Order(Event, type="order"):
    number: int
    customer: str
    total: str
    sent: float
    note: str


class Shipped(Event, type="shipped"):
    number: int


def settings_for(job: Job) -> Settings:
    return Settings(
        _env_file=None,  # type: ignore[call-arg]
        broker={"url": job.rabbitmq, "exchange": job.queue, "queue_type": job.queue_type, "max_delay": 1},  # type: ignore[arg-type]
        idempotency={"url": job.redis or "memory://", "prefix": job.queue},  # type: ignore[arg-type]
        worker={"concurrency": max(job.concurrency, 1)},  # type: ignore[arg-type]
        http={"port": 0},  # type: ignore[arg-type]
    )


async def idle(event: dict[str, Any]) -> None: ...


def a_worker(job: Job, tally: Tally | None) -> Worker:
    worker = Worker(job.queue, settings=settings_for(job))
    options: dict[str, Any] = {"prefetch": job.prefetch, "idempotent": job.idempotent}

    async def handle(event: Order, ctx: Context) -> None:
        if job.sleep:
            await asyncio.sleep(job.sleep)
        for _ in range(job.spin):
            hashlib.sha256(event.note.encode()).digest()
        if job.chain:
            await ctx.publish(Shipped(number=event.number))
        if tally is not None:
            tally.handled(event.number, event.sent)

    worker.handler(Order, name="handle", queue=job.queue, **options)(handle)
    for number in range(1, job.handlers):  # queues that are consumed, and empty
        worker.handler(f"other{number}", name=f"handle{number}")(idle)
    return worker


async def consume(job: Job) -> None:
    tally = Tally(job.count)
    worker = a_worker(job, tally)
    if job.processes == 1:  # of several, none knows when all is handled
        tally.then = worker.stop
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.stop)
    await worker.run(http=True)
    tally.report()


async def publish(job: Job) -> None:
    async with Publisher(settings_for(job)) as publisher:
        numbers = iter(range(job.count))

        async def one_by_one() -> None:
            for number in numbers:
                await publisher.publish(Order(**an_order(number, size=job.size)))

        with Stopwatch() as watch:
            await asyncio.gather(*(one_by_one() for _ in range(job.in_flight)))
    tell(job.count, watch.seconds, watch.cpu)


if __name__ == "__main__":
    configure_logging(LogSettings(format="json"), Path(os.devnull).open("w"))  # noqa: SIM115 (for the life of the process)
    job = Job.read()
    run(job, consume(job) if job.role == "consume" else publish(job))
    sys.stdout.flush()
