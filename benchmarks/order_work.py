"""The process that `order.py` measures: it handles the events of keys, in order or not."""

import asyncio
import json
import os
import signal
import sys
import time
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import aio_pika
import redis.asyncio

from holdfast import Context, Event, Ordered, Reject, Retry, Settings, Worker, fixed
from holdfast.config import LogSettings
from holdfast.telemetry import configure_logging

PADDING = "x" * 240  # makes a body of some 320 bytes


class Step(Event, type="bench.step", key="key"):
    key: str
    number: int
    does: Literal["return", "fail", "die"] = "return"
    padding: str = PADDING


@dataclass(frozen=True, slots=True)
class Job:
    """How to handle events: `ordered`, `unordered`, or with a lock per key on aio-pika (`locks`). The process ends when
    it has handled `count`; with 0 it goes on until it is told to stop. `notes`: a file for a line of each event."""

    how: Literal["ordered", "unordered", "locks"]
    rabbitmq: str
    redis: str
    name: str
    count: int = 0
    notes: str = ""
    parked: int = 50_000


class Handled:
    """Counts the events that were handled; a repeat does not count."""

    def __init__(self, job: Job) -> None:
        self.enough = asyncio.Event()
        self._job = job
        self._seen: set[int] = set()
        self._began = self._ended = 0.0
        self._notes = Path(job.notes).open("a", buffering=1) if job.notes else None  # noqa: SIM115 (for the life of the process)

    def __call__(self, key: str, number: int) -> None:
        self._ended = time.monotonic()
        self._began = self._began or self._ended
        self._seen.add(number)
        if self._notes is not None:
            self._notes.write(f"{self._ended} {os.getpid()} {key} {number}\n")
        if len(self._seen) == self._job.count:
            self.enough.set()

    def report(self) -> None:
        """Print the figures for the parent."""
        print(json.dumps({"count": len(self._seen), "seconds": self._ended - self._began}), flush=True)


def settings_of(job: Job) -> Settings:
    """Return the settings of a worker or publisher of this job."""
    return Settings(
        _env_file=None,  # type: ignore[call-arg]
        broker={"url": job.rabbitmq, "exchange": job.name, "max_delay": 60},  # type: ignore[arg-type]
        idempotency={"url": job.redis, "prefix": job.name},  # type: ignore[arg-type]
        worker={"concurrency": 64},  # type: ignore[arg-type]
        http={"port": 0},  # type: ignore[arg-type]
    )


def worker_of(job: Job, handled: Handled | None = None) -> Worker:
    """Return the worker of this job; without `handled`, one to declare its queue."""
    worker = Worker(job.name, settings=settings_of(job))
    ordered = Ordered(parked=job.parked) if job.how == "ordered" else False

    @worker.handler(
        Step, name="handle", queue=job.name, ordered=ordered, retry=Retry(attempts=1_000_000, backoff=fixed(1))
    )
    async def handle(event: Step, ctx: Context) -> None:
        if event.does == "fail":
            raise ValueError("for ever")
        if event.does == "die":
            raise Reject("at once")
        if handled is not None:
            handled(event.key, event.number)

    return worker


async def with_holdfast(job: Job, handled: Handled) -> None:
    """Consume as a worker does."""
    worker = worker_of(job, handled)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.stop)
    running = asyncio.create_task(worker.run())
    if job.count:
        await handled.enough.wait()
        worker.stop()
    await running


async def with_locks(job: Job, handled: Handled) -> None:
    """Consume as aio-pika's users do who want order: a lock per key, and a mark in Redis for each event."""
    connection = await aio_pika.connect(job.rabbitmq)
    channel = await connection.channel()
    await channel.set_qos(prefetch_count=200)
    marks, locks = redis.asyncio.from_url(job.redis, max_connections=400), defaultdict[str, asyncio.Lock](asyncio.Lock)

    async def handle(message: aio_pika.abc.AbstractIncomingMessage) -> None:
        step = Step.model_validate_json(message.body)
        async with locks[step.key]:
            if await marks.set(f"{job.name}:{step.number}", "1", nx=True, ex=60):
                handled(step.key, step.number)
                await marks.set(f"{job.name}:{step.number}", "done", ex=60)
            await message.ack()

    await (await channel.get_queue(job.name)).consume(handle)
    await handled.enough.wait()
    await connection.close()


async def main(job: Job) -> None:
    """Do the job, and report."""
    handled = Handled(job)
    await (with_locks if job.how == "locks" else with_holdfast)(job, handled)
    handled.report()


def words_of(job: Job) -> list[str]:
    """Return the command of a process that does this job."""
    return [sys.executable, __file__, json.dumps(asdict(job))]


if __name__ == "__main__":
    configure_logging(LogSettings(format="json"), Path(os.devnull).open("w"))  # noqa: SIM115 (for the life of the process)
    asyncio.run(main(Job(**json.loads(sys.argv[1]))))
