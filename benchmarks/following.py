"""Followed requests next to the same requests unfollowed, on real servers, with a claim store.

    python benchmarks/following.py [--count 3000] [--rounds 5]

`handle`: events that wait in a queue, each a request of its own, are handled. `request`: a request is published, 100 at
once; its handler publishes two events, which are handled in turn. Prints how many a second, the processor time of this
process for each, and the ratios.
"""

import argparse
import asyncio
import secrets
import statistics
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from holdfast import Context, Event, Publisher, Settings, Worker
from holdfast.cli.run import run
from holdfast.publisher.following import Following
from holdfast.telemetry import Fact, Settled
from holdfast.testing import servers

AT_ONCE = 100
EVENTS = 3  # of a request


class Ordered(Event, type="bench.ordered", key="order"):
    order: str


class Paid(Event, type="bench.paid", key="order"):
    order: str


class Confirmed(Event, type="bench.confirmed", key="order"):
    order: str


class Waiting(Event, type="bench.waiting", key="order"):
    order: str


@dataclass(frozen=True)
class Cost:
    """What some requests took: seconds, and seconds of this process's processor."""

    seconds: float
    processor: float


class Handled:
    """Counts the events that are handled, and reports when it is enough."""

    def __init__(self) -> None:
        self.left, self.done = 0, asyncio.Event()

    def __call__(self, fact: Fact) -> None:
        if isinstance(fact, Settled) and fact.outcome == "handled":
            self.left -= 1
            if self.left <= 0:
                self.done.set()

    async def during(self, count: int, work: Awaitable[object]) -> Cost:
        """Return what it took until so many events were handled, from when the work began."""
        self.left = count
        self.done.clear()
        began, processor = time.perf_counter(), time.process_time()
        await work
        await self.done.wait()
        return Cost(time.perf_counter() - began, time.process_time() - processor)


def a_worker(settings: Settings, handled: Handled) -> Worker:
    """Return the worker of the requests."""
    worker = Worker("bench", settings=settings, listeners=[handled])

    @worker.handler(Ordered)
    async def order(event: Ordered, context: Context) -> None:
        context.publish(Paid(order=event.order))
        context.publish(Confirmed(order=event.order))

    @worker.handler(Paid)
    async def pay(event: Paid) -> None: ...

    @worker.handler(Confirmed)
    async def confirm(event: Confirmed) -> None: ...

    @worker.handler(Waiting)
    async def handle(event: Waiting) -> None: ...

    return worker


async def publish(publisher: Publisher, kind: type[Ordered | Waiting], count: int, *, follow: bool) -> None:
    """Publish the first events of some requests."""
    numbers = iter(range(count))

    async def one_by_one() -> None:
        for number in numbers:
            await publisher.publish(kind(order=str(number)), follow=follow)

    await asyncio.gather(*(one_by_one() for _ in range(AT_ONCE)))


async def main(rabbitmq: str, redis: str, count: int, rounds: int) -> None:
    """Measure, and print the figures."""
    settings = Settings(
        _env_file=None,  # type: ignore[call-arg]
        broker={"url": rabbitmq, "exchange": f"bench-{secrets.token_hex(4)}"},  # type: ignore[arg-type]
        idempotency={"url": redis},  # type: ignore[arg-type]
        log={"format": "none", "successes": 0},  # type: ignore[arg-type]
    )
    handled = Handled()
    names = [(what, follow) for what in ("handle", "request") for follow in (False, True)]
    costs: dict[tuple[str, bool], list[Cost]] = {name: [] for name in names}
    async with Publisher(settings) as publisher:
        async with _running(a_worker(settings, handled)):
            await handled.during(EVENTS * AT_ONCE, publish(publisher, Ordered, AT_ONCE, follow=True))
        for number in range(rounds):
            for follow in (False, True)[:: 1 if number % 2 else -1]:
                await publish(publisher, Waiting, count, follow=follow)
                worker = a_worker(settings, handled)
                handling = asyncio.create_task(handled.during(count, asyncio.sleep(0)))
                async with _running(worker):
                    costs["handle", follow].append(await handling)
                    more = handled.during(EVENTS * count, publish(publisher, Ordered, count, follow=follow))
                    costs["request", follow].append(await more)
        await _print_progress(settings, publisher, handled)
    for what in ("handle", "request"):
        for follow in (False, True):
            some, name = costs[what, follow], "followed" if follow else "unfollowed"
            rate = statistics.median(count / cost.seconds for cost in some)
            spent = statistics.median(cost.processor for cost in some) / count
            print(f"{what:<8} {name:<11} {rate:>7,.0f} a second, {1e6 * spent:,.0f} µs of processor")
        pairs = zip(costs[what, False], costs[what, True], strict=True)
        ratios = [plain.seconds / followed.seconds for plain, followed in pairs]
        print(f"{what:<8} followed to unfollowed {statistics.median(ratios):.2f} ({_listed(ratios)})")


async def _print_progress(settings: Settings, publisher: Publisher, handled: Handled) -> None:
    async with _running(a_worker(settings, handled)), Following(settings) as following:
        sent = await publisher.publish(Ordered(order="last"), follow=True)
        progress = await following.until_done(sent.correlation_id, within=10.0)
    print(f"the last request is {progress.state}")


def _listed(ratios: list[float]) -> str:
    return ", ".join(f"{ratio:.2f}" for ratio in ratios)


@asynccontextmanager
async def _running(worker: Worker) -> AsyncIterator[None]:
    task = asyncio.create_task(worker.run())
    while not worker.health().ready:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    yield
    worker.stop()
    await task


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with servers.rabbitmq_server() as rabbitmq, servers.redis_server() as redis:
        run(main(rabbitmq.url, redis.url, arguments.count, arguments.rounds))
