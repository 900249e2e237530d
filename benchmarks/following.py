"""Followed requests beside the same requests unfollowed, on real servers.

    python benchmarks/following.py [--count 3000] [--rounds 5]

A request is one event whose handler publishes two more, which are handled in turn: 100 requests are published at once,
with a claim store. Prints requests a second until all is handled, the processor time of this process, and the ratios.
"""

import argparse
import asyncio
import secrets
import statistics
import time
from collections.abc import AsyncIterator
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

    return worker


async def requests(publisher: Publisher, handled: Handled, count: int, *, follow: bool) -> Cost:
    """Return what some requests took, from the first publish to the last event that was handled."""
    handled.left = EVENTS * count
    handled.done.clear()
    numbers = iter(range(count))

    async def one_by_one() -> None:
        for number in numbers:
            await publisher.publish(Ordered(order=str(number)), follow=follow)

    began, processor = time.perf_counter(), time.process_time()
    await asyncio.gather(*(one_by_one() for _ in range(AT_ONCE)))
    await handled.done.wait()
    return Cost(time.perf_counter() - began, time.process_time() - processor)


async def main(rabbitmq: str, redis: str, count: int, rounds: int) -> None:
    """Measure, and print the figures."""
    settings = Settings(
        _env_file=None,
        broker={"url": rabbitmq, "exchange": f"bench-{secrets.token_hex(4)}"},
        idempotency={"url": redis},
        log={"format": "none", "successes": 0},
    )
    handled = Handled()
    costs: dict[bool, list[Cost]] = {False: [], True: []}
    async with _running(a_worker(settings, handled)), Publisher(settings) as publisher:
        await requests(publisher, handled, AT_ONCE, follow=True)
        for number in range(rounds):
            for follow in (False, True)[:: 1 if number % 2 else -1]:
                costs[follow].append(await requests(publisher, handled, count, follow=follow))
        sent = await publisher.publish(Ordered(order="last"), follow=True)
        async with Following(settings) as following:
            progress = await following.until_done(sent.correlation_id, within=10.0)
    for follow, some in costs.items():
        rate = statistics.median(count / cost.seconds for cost in some)
        spent = statistics.median(cost.processor for cost in some) / count
        name = "followed" if follow else "unfollowed"
        print(f"{name:<12} {rate:>7,.0f} requests/s, {1e6 * spent:,.0f} µs of processor")
    ratios = [plain.seconds / followed.seconds for plain, followed in zip(*costs.values(), strict=True)]
    print(f"followed to unfollowed {statistics.median(ratios):.2f} ({', '.join(f'{ratio:.2f}' for ratio in ratios)})")
    print(f"the last request is {progress.state}")


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
