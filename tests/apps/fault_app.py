"""The worker under test, in a process of its own: `python fault_app.py`. What it does, it notes in a file that
outlives it. SIGUSR1 arms the fault point of `TEST_POINT`: the next delivery that comes there takes the process down.
SIGUSR2 changes the time of day."""

import asyncio
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from itertools import cycle
from pathlib import Path
from typing import Any, NoReturn

from ledgers import Journal

from holdfast import Context, Event, Ordered, Reject, Retry, Settings, Worker, fixed, load_settings
from holdfast.broker import REAL, Broker, ladder, open_broker
from holdfast.consumer import Dependencies
from holdfast.events import headers as h
from holdfast.idempotency import Claim, ClaimStore, Mark, OpenClaims, open_claims
from holdfast.telemetry import Attached, CrashSuspected, Emit, Fact, Settled, configure_logging

ATTEMPTS = 3
TIMEOUT = 1.5
NAME = os.environ.get("TEST_NAME", "faults")
POINT = os.environ.get("TEST_POINT", "")
PARTITIONS = int(os.environ.get("TEST_PARTITIONS", "1"))


class Job(Event, type="job"):
    does: str = "return"


class Blocking(Event, type="blocking"):
    does: str = "return"


class Link(Event, type="link"):
    does: str = "return"


class Linked(Event, type="linked"):
    does: str = "return"


class Placed(Event, type="placed", key="key"):
    does: str = "return"
    key: str = "k"
    seq: int = 0


RAISED: dict[str, Callable[[], BaseException]] = {
    "KeyboardInterrupt": KeyboardInterrupt,
    "SystemExit": lambda: SystemExit(3),
    "GeneratorExit": GeneratorExit,
    "MemoryError": MemoryError,
    "RecursionError": RecursionError,
    "group": lambda: ExceptionGroup("many", [OSError("a"), ValueError("b")]),
    "unspeakable": lambda: Unspeakable(),
    "huge": lambda: OSError("x" * 10_000_000),
    "reject": lambda: Reject("never"),
    "deep": lambda: deeply(900),
}


def deeply(depth: int) -> BaseException:
    """Raises from so many frames down."""
    if depth == 0:
        raise OSError("from far below")
    return deeply(depth - 1)


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("it cannot be told")


journal = Journal(Path(os.environ.get("TEST_JOURNAL", "/dev/null")))
WELL = Path(os.environ.get("TEST_WELL", "/nonexistent"))
armed = threading.Event()


def die(**told: object) -> NoReturn:
    journal.write("dying", **told)
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


def reached(point: str, **told: object) -> None:
    if armed.is_set() and point == POINT:
        die(**told)


def tell(fact: Fact) -> None:
    match fact:
        case Attached(queue):
            journal.write("attached", queue=queue)
        case CrashSuspected(queue, event_id):
            journal.write("suspected", queue=queue, event_id=event_id)
        case Settled():
            metadata = fact.metadata
            cause = metadata.causation_id or ""
            place = {"queue": fact.queue, "event_id": metadata.event_id, "cause": cause}
            journal.write("settled", **place, attempt=fact.attempt, outcome=fact.outcome)
        case _:
            pass


class MortalClaims:
    """A claim store before and after whose answers the process may die."""

    def __init__(self, store: ClaimStore) -> None:
        self._store = store

    async def claim(self, claim: Claim, *, alone: bool = False, max_crashes: int = 3) -> Any:
        reached("before claim")
        answer = await self._store.claim(claim, alone=alone, max_crashes=max_crashes)
        reached("after claim")
        return answer

    async def complete(self, claim: Claim, mark: Mark | None = None) -> Any:
        completion = await self._store.complete(claim, mark)
        reached("after complete")
        return completion

    async def release(self, claim: Claim, *, forget: bool = False) -> None:
        await self._store.release(claim, forget=forget)
        reached("after release")

    async def close(self) -> None:
        await self._store.close()


class MortalBroker:
    """A broker after whose confirm of a retry's copy the process may die: the original, acked next, is not."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def __getattr__(self, name: str) -> Any:
        return getattr(self._broker, name)

    async def publish(self, message: Any, *, timeout: float | None) -> None:
        await self._broker.publish(message, timeout=timeout)
        if message.exchange.startswith(ladder.LEVELS):  # its claim was released before
            queue = message.headers[h.QUEUE]
            reached("after confirm", event_id=message.headers[h.EVENT_ID], queue=queue)


class JumpingClock:
    """The system's clock, whose time of day goes back and forth by hours. A compiled class has no Python subclasses."""

    def __init__(self) -> None:
        self.time, self.precise, self.call_at = REAL.time, REAL.precise, REAL.call_at
        self._jumps = cycle(timedelta(hours=hours) for hours in (-5, 7, 0, 30))
        self._off = timedelta()

    def now(self) -> datetime:
        return REAL.now() + self._off

    def jump(self) -> None:
        self._off = next(self._jumps)


async def mortal_broker(settings: Settings, emit: Emit) -> Any:
    return MortalBroker(await open_broker(settings, emit))


def mortal_claims(settings: Settings, emit: Emit) -> OpenClaims:
    opened = open_claims(settings, emit)
    return OpenClaims(MortalClaims(opened.store), opened.lease, opened.findings)


def held() -> dict[str, int]:
    """What the kernel says this process has; memory in KiB."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    descriptors = sum(1 for _ in Path("/proc/self/fd").iterdir())
    return {"descriptors": descriptors, "threads": int(status["Threads"]), "memory": int(status["VmRSS"].split()[0])}


@asynccontextmanager
async def lifespan() -> AsyncIterator[None]:
    """Notes once a second what the process holds."""

    async def gauge() -> None:
        while True:
            journal.write("gauge", figures=held() | {"tasks": len(asyncio.all_tasks())})
            await asyncio.sleep(1)

    task = asyncio.create_task(gauge())
    yield
    task.cancel()


settings = load_settings()
worker = Worker(NAME, settings=settings, lifespan=lifespan, listeners=[tell])
policy = Retry(attempts=ATTEMPTS, backoff=fixed(0.3), max_crashes=3)


def noted(ctx: Context, phase: Any, **more: object) -> None:
    place = {"event_id": ctx.event_id, "queue": ctx.queue, "cause": ctx.metadata.causation_id or ""}
    journal.write(phase, **place, attempt=ctx.attempt, **more)


async def before_the_effect(does: str, ctx: Context) -> None:  # noqa: C901 (one clause per misdeed)
    match does.split(":"):
        case ["slow"]:
            await asyncio.sleep(0.2)
        case ["fail once"] if ctx.attempt == 1:
            raise OSError("not yet")
        case ["fail until well"] if not WELL.exists():
            raise OSError("not before it is well")
        case ["fail"]:
            raise OSError("never")
        case ["die"]:
            journal.write("dying")
            os._exit(9)
        case ["crash"]:
            journal.write("dying")
            ctypes.string_at(0)  # the kernel ends the process
        case ["die once"] if ctx.attempt == 1 and not ctx.redelivered:
            die()
        case ["hang"]:
            await asyncio.Event().wait()
        case ["stubborn"]:
            end = asyncio.get_running_loop().time() + TIMEOUT + 3
            while (left := end - asyncio.get_running_loop().time()) > 0:
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(left)
            raise OSError("at last")
        case ["block the loop"]:
            time.sleep(1.2)  # noqa: ASYNC251 (the fault)
        case ["raise", name]:
            raise RAISED[name]()
        case _:
            pass


@worker.handler(Job, retry=policy, timeout=TIMEOUT)
async def work(event: Job, ctx: Context) -> None:
    noted(ctx, "start")
    await before_the_effect(event.does, ctx)
    noted(ctx, "effect")
    reached("after effect")
    if event.does == "linger":
        await asyncio.sleep(0.1)
    noted(ctx, "done")


@worker.handler(Blocking, retry=policy, timeout=TIMEOUT)
def block(event: Blocking, ctx: Context) -> None:
    noted(ctx, "start")
    if event.does == "fail once" and ctx.attempt == 1:
        raise OSError("not yet")
    time.sleep(0.02)
    noted(ctx, "effect")
    noted(ctx, "done")


@worker.handler(Link, retry=policy, timeout=TIMEOUT)
async def link(event: Link, ctx: Context) -> None:
    noted(ctx, "start")
    await before_the_effect(event.does, ctx)
    await ctx.publish(Linked())
    noted(ctx, "effect")
    noted(ctx, "done")


@worker.handler(Linked, retry=policy, timeout=TIMEOUT)
async def linked(event: Linked, ctx: Context) -> None:
    noted(ctx, "start")
    noted(ctx, "effect")
    noted(ctx, "done")


@worker.handler(Placed, retry=policy, timeout=TIMEOUT, ordered=Ordered(partitions=PARTITIONS))
async def project(event: Placed, ctx: Context) -> None:
    place = {"key": event.key, "seq": event.seq, "fence": ctx.fence}
    noted(ctx, "start", **place)
    try:
        await before_the_effect(event.does, ctx)
        noted(ctx, "effect", **place)
        reached("after effect")
        await asyncio.sleep(0.1 if event.does == "linger" else 0.002)
    finally:
        noted(ctx, "done", **place)


ORDERED = "project"
QUEUES = ("work", "block", "link", "linked", ORDERED)


async def main() -> None:
    configure_logging(settings.log)
    loop = asyncio.get_running_loop()
    told = 0

    def stop() -> None:
        nonlocal told
        told += 1
        worker.stop(now=told > 1)

    loop.add_signal_handler(signal.SIGTERM, stop)
    loop.add_signal_handler(signal.SIGUSR1, armed.set)
    clock = JumpingClock()
    loop.add_signal_handler(signal.SIGUSR2, clock.jump)
    dependencies = Dependencies(clock=clock, open_broker=mortal_broker, open_claims=mortal_claims)
    await worker.run(http=True, dependencies=dependencies)
    sys.stdout.flush()
    os._exit(1 if told > 1 else 0)  # as `holdfast run` ends, whatever a handler left behind


if __name__ == "__main__":
    asyncio.run(main())
