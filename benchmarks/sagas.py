"""A step of a saga beside a handler in a transaction with one UPDATE, and how late a limit fires among many.

    python benchmarks/sagas.py POSTGRES_URL [COUNT] [ROUNDS]

Both take the same events from the in-process broker, interleaved, each for a row of its own. Prints steps a second, the
ratio of the two, and the seconds from a limit to its step with 100,000 sagas that wait.
"""

import asyncio
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from holdfast import Context, Event, Publisher, Settings, Worker
from holdfast.sagas import Saga, Stage, Step, begins, late, on
from holdfast.sql import Database, ddl
from holdfast.telemetry import Fact, Settled

SCHEMA = "bench_sagas"
WAITING = 100_000


class Begun(Event, type="bench.begun", key="key"):
    key: str


class Moved(Event, type="bench.moved", key="key"):
    key: str


class Waited(Event, type="bench.waited", key="key"):
    key: str


class Updated(Event, type="bench.updated", key="key"):
    key: str


class Walk(Saga, key="key"):
    key: str
    steps: int = 0

    first = Stage(limit=timedelta(seconds=2))
    walking = Stage()
    arrived = Stage(end=True)

    @begins(Begun, to=walking)
    @staticmethod
    def begin(event: Begun, step: Step) -> "Walk":
        return Walk(key=event.key)

    @begins(Waited, to=first)
    @staticmethod
    def wait(event: Waited, step: Step) -> "Walk":
        return Walk(key=event.key)

    over = late(first, to=arrived)

    @on(Moved, at=walking, to=(walking, arrived))
    def move(self, event: Moved, step: Step) -> None:
        self.steps += 1
        step.goto(Walk.walking)


class Settlements:
    """Counts what is handled, and tells when it is enough."""

    def __init__(self) -> None:
        self.left, self.done = 0, asyncio.Event()

    def __call__(self, fact: Fact) -> None:
        if isinstance(fact, Settled) and fact.outcome == "handled":
            self.left -= 1
            if self.left <= 0:
                self.done.set()

    async def until(self, count: int, events: list[Event], settings: Settings) -> float:
        """Return the seconds that these events took."""
        self.left = count
        self.done.clear()
        began = time.perf_counter()
        async with Publisher(settings) as publisher:
            await publisher.publish_many(events)
            await self.done.wait()
        return time.perf_counter() - began


async def main(url: str, count: int, rounds: int) -> None:
    """Measure, and print the figures."""
    engine = create_async_engine(url.replace("postgresql:", "postgresql+asyncpg:"), pool_size=20)
    database, settlements = Database(engine), Settlements()
    await _run(database, f"drop schema if exists {SCHEMA} cascade", *ddl(SCHEMA), *_TABLES)
    settings = Settings(
        broker={"url": "memory://bench"},  # type: ignore[arg-type]
        sql={"schema": SCHEMA},  # type: ignore[arg-type]
        worker={"concurrency": 16},  # type: ignore[arg-type]
        log={"format": "none", "successes": 0},  # type: ignore[arg-type]
    )
    sagas = Worker("sagas", settings=settings, listeners=[settlements])
    plain = Worker("plain", settings=settings, listeners=[settlements])
    sagas.include(Walk, within=database)

    @plain.handler(Updated, within=database)
    async def update(event: Updated, ctx: Context, connection: AsyncConnection) -> None:
        sql = f"update {SCHEMA}.rows set steps = steps + 1 where key = :key"
        await connection.execute(text(sql), {"key": event.key})

    keys = [f"k-{n}" for n in range(count)]
    figures: dict[str, list[float]] = {"saga": [], "plain": []}
    async with _running(sagas):
        await settlements.until(count, [Begun(key=key) for key in keys], settings)
    for _ in range(rounds):
        for name, worker, kind in (("plain", plain, Updated), ("saga", sagas, Moved)):
            async with _running(worker):
                events: list[Event] = [kind(key=key) for key in keys]
                figures[name].append(await settlements.until(count, events, settings))
    ratios = [saga / handler for saga, handler in zip(figures["saga"], figures["plain"], strict=True)]
    for name, seconds in figures.items():
        print(f"{name:<6} {count / statistics.median(seconds):>7,.0f} a second")
    print(f"ratio  {statistics.median(ratios):.2f} ({', '.join(f'{ratio:.2f}' for ratio in ratios)})")
    await _limits(database, settings, sagas, settlements)
    await engine.dispose()


async def _limits(database: Database[Any], settings: Settings, sagas: Worker, settlements: Settlements) -> None:
    """Print how late ten limits fire while many sagas wait."""
    values = (
        f"select 'walk', 'w-' || n, 'life', 1, 'first', 1, '{{\"key\": \"w\"}}', 1, '[]', now() + interval '1 day', "
        f"now(), now() from generate_series(1, {WAITING}) n"
    )
    columns = "saga, key, life, version, stage, entered, state, state_version, undo, due_at, began_at, changed_at"
    await _run(database, f"insert into {SCHEMA}.sagas ({columns}) {values}")
    async with _running(sagas):
        await settlements.until(20, [Waited(key=f"l-{n}") for n in range(10)], settings)
    late_by = (
        f"select extract(epoch from s.at - f.at) - 2 from {SCHEMA}.saga_steps s join {SCHEMA}.saga_steps f "
        "on s.key = f.key and f.version = 1 where s.taken = 'overdue'"
    )
    rows = await _run(database, late_by)
    print(f"limit  {max(float(row[0]) for row in rows):.2f} s late at most, of {len(rows)}, with {WAITING:,} waiting")


_TABLES = (
    f"create table {SCHEMA}.rows (key text primary key, steps integer not null)",
    f"insert into {SCHEMA}.rows select 'k-' || n, 0 from generate_series(0, 100000) n",
)


async def _run(database: Database[Any], *statements: str) -> list[Any]:
    def steps() -> Any:
        rows: list[Any] = []
        for statement in statements:
            rows = yield statement, {}
        return rows

    rows: list[Any] = await database.run(steps())
    return rows


@asynccontextmanager
async def _running(worker: Worker) -> AsyncIterator[None]:
    """Run a worker within a block."""
    task = asyncio.create_task(worker.run())
    while not worker.health().ready:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    yield
    worker.stop()
    await task


if __name__ == "__main__":
    numbers = [int(argument) for argument in sys.argv[2:]]
    asyncio.run(main(sys.argv[1], *(numbers + [3000, 5][len(numbers) :])))
