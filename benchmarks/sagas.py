"""A step of a saga beside a handler in a transaction with one UPDATE, and how late a limit fires among many.

    python benchmarks/sagas.py POSTGRES_URL [COUNT] [ROUNDS]

Both take the same events from the in-process broker, interleaved, each for a row of its own, by SQLAlchemy and then by
asyncpg alone. Prints steps a second, the statements of each, the ratio of their times and of the processor time that
this process and the server's connections took, which other load on the machine changes less, and the seconds from a
limit to its step with 100,000 sagas that wait. The processor time of a server on another machine is not counted.
"""

import asyncio
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
from sqlalchemy import event as sqlalchemy_event
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from holdfast import Context, Event, Publisher, Settings, Worker
from holdfast.cli.run import run
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


@dataclass(frozen=True)
class Cost:
    """What some events took: seconds, seconds of processors, and statements."""

    seconds: float
    processor: float
    statements: int


class Settlements:
    """Counts what is handled, and reports when it is enough."""

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
    """Measure with SQLAlchemy and with asyncpg alone, and print the figures."""
    engine = create_async_engine(url.replace("postgresql:", "postgresql+asyncpg:"), pool_size=20)
    statements = [0]
    sqlalchemy_event.listen(
        engine.sync_engine, "before_cursor_execute", lambda *_: statements.__setitem__(0, statements[0] + 1)
    )
    print("SQLAlchemy, asyncpg below it:")
    await _measure(Database(engine), count, rounds, statements)
    await engine.dispose()
    async with asyncpg.create_pool(url, min_size=16, max_size=20) as pool:
        print("asyncpg:")
        await _measure(Database.asyncpg(pool), count, rounds)


async def _measure(database: Database[Any], count: int, rounds: int, statements: list[int] | None = None) -> None:
    """Print the figures of a database; `statements` counts those that were executed."""
    settlements, statements = Settlements(), statements or [0]
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
    async def update(event: Updated, ctx: Context, connection: Any) -> None:
        sql = f"update {SCHEMA}.rows set steps = steps + 1 where key = "
        if isinstance(connection, AsyncConnection):
            await connection.execute(text(sql + ":key"), {"key": event.key})
        else:
            await connection.execute(sql + "$1", event.key)

    keys = [f"k-{n}" for n in range(count)]
    costs: dict[str, list[Cost]] = {"plain": [], "saga": []}
    async with _running(sagas):
        await settlements.until(count, [Begun(key=key) for key in keys], settings)
    for round_ in range(rounds):
        contenders = [("plain", plain, Updated), ("saga", sagas, Moved)]
        for name, worker, kind in contenders[:: 1 if round_ % 2 else -1]:
            async with _running(worker):
                events: list[Event] = [kind(key=key) for key in keys]
                before, processor = statements[0], await _processor_time(database)
                seconds = await settlements.until(count, events, settings)
                made, processor = statements[0] - before, await _processor_time(database) - processor
                costs[name].append(Cost(seconds, processor, made))
    for name, some in costs.items():
        rate, made = count / statistics.median(each.seconds for each in some), min(each.statements for each in some)
        spent = statistics.median(each.processor for each in some) / count
        executed = f", {made / count:.1f} statements" if made else ""
        print(f"  {name:<10} {rate:>7,.0f} a second, {1e6 * spent:,.0f} µs of processors{executed}")
    pairs = [*zip(costs["saga"], costs["plain"], strict=True)]
    _print_ratios("time", [saga.seconds / plain.seconds for saga, plain in pairs])
    _print_ratios("processors", [saga.processor / plain.processor for saga, plain in pairs])
    await _limits(database, settings, sagas, settlements)


def _print_ratios(name: str, ratios: list[float]) -> None:
    print(f"  {name:<10} {statistics.median(ratios):.2f} ({', '.join(f'{ratio:.2f}' for ratio in sorted(ratios))})")


async def _processor_time(database: Database[Any]) -> float:
    """Return the seconds of processors that this process has taken, and the server's connections to this database."""
    pids = await _run(database, "select pid from pg_stat_activity where datname = current_database()")
    stats = [Path(f"/proc/{pid}/stat") for (pid,) in pids]
    ticks = [
        int(each) for path in stats if path.exists() for each in path.read_text().rpartition(")")[2].split()[11:13]
    ]
    return time.process_time() + sum(ticks) / os.sysconf("SC_CLK_TCK")


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
    latest = max(float(row[0]) for row in rows)
    print(f"  limit      {latest:.2f} s late at most, of {len(rows)}, with {WAITING:,} waiting")


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
    run(main(sys.argv[1], *(numbers + [3000, 5][len(numbers) :])))
