"""The journal beside `eventsourcing`, on one PostgreSQL, in the same run.

    python benchmarks/journal.py [--json FILE] [--quick] [--only TEXT]

Eight writers append to eight aggregates, one event in a transaction: Holdfast by asyncpg, by sessions of SQLAlchemy
and by psycopg in threads, with and without a relay that gives positions meanwhile, and eventsourcing (where it is
installed) in threads, as it comes and with its functions in the database. Then a projection whose function does nothing
catches up. Prints medians of three and their ratios.
"""

import argparse
import asyncio
import json
import os
import random
import secrets
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import asyncpg
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.orm import sessionmaker

from holdfast import Event, Settings
from holdfast.broker import REAL, Broker
from holdfast.cli.run import run
from holdfast.events import seal
from holdfast.journal import Aggregate, Journal, Projection, Recorded, applies, write_past
from holdfast.journal.projector import Projector
from holdfast.outbox import Relay
from holdfast.sql import Database, Outgoing, ddl
from holdfast.telemetry import Spans
from holdfast.testing import servers

RUNS = 3
WRITERS = 8
OLD = 10  # events of an aggregate that is loaded
Figures = dict[str, list[float]]


class Deposited(Event, type="deposited", key="account"):
    account: str
    cents: int


class Account(Aggregate, key="account"):
    account: str
    cents: int = 0

    @applies(Deposited)
    def deposited(self, event: Deposited) -> None:
        self.cents += event.cents


class Sink:
    """A broker that confirms all."""

    header_budget = 100_000

    async def publish(self, *arguments: Any, **options: Any) -> None: ...

    async def declare(self, *arguments: Any) -> None: ...


class Bench:
    """The tables of one run, with a name of its own."""

    def __init__(self, postgres: str, name: str) -> None:
        self.name, self.url = name, postgres
        self.settings = Settings(_env_file=None, sql={"schema": name, "keep": "forever"}, log={"level": "CRITICAL"})
        url = postgres.replace("postgresql:", "postgresql+asyncpg:")
        self.engine: AsyncEngine = create_async_engine(url, pool_size=WRITERS + 4)
        self.sessions = async_sessionmaker(self.engine)
        self.database = Database(self.sessions)
        self.journal = Journal(self.database, self.settings, source="bench")

    async def execute(self, *statements: str) -> None:
        async with self.engine.begin() as connection:
            for statement in statements:
                await connection.execute(text(statement))

    async def __aenter__(self) -> "Bench":
        await self.execute(*ddl(self.name, keeps=True))
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self.execute(f"drop schema {self.name} cascade")
        await self.engine.dispose()


async def timed(count: int, work: Awaitable[object]) -> float:
    """Return how many a second."""
    started = time.perf_counter()
    await work
    return count / (time.perf_counter() - started)


async def on_loop(bench: Bench, count: int, *, loads: bool) -> None:
    """Append by SQLAlchemy on asyncpg: eight tasks, each with an aggregate of its own."""

    async def writer(number: int) -> None:
        account = Account(account=f"a-{number}")
        for done in range(count // WRITERS):
            async with bench.sessions.begin() as session:
                if loads:
                    key = f"a-{number}-{done // OLD}"
                    account = await bench.journal.load(Account, key, session)
                account.record(Deposited(account=account.account, cents=1))
                await bench.journal.append(account, session)

    await asyncio.gather(*map(writer, range(WRITERS)))


async def on_driver(bench: Bench, count: int) -> None:
    """Append by asyncpg alone, as eventsourcing does by psycopg: eight tasks, each with an aggregate of its own."""
    async with asyncpg.create_pool(bench.url, min_size=WRITERS, max_size=WRITERS) as pool:

        async def writer(number: int) -> None:
            account = Account(account=f"a-{number}")
            for _ in range(count // WRITERS):
                async with pool.acquire() as connection, connection.transaction():
                    account.record(Deposited(account=account.account, cents=1))
                    await bench.journal.append(account, connection)

        await asyncio.gather(*map(writer, range(WRITERS)))


async def in_threads(bench: Bench, count: int) -> None:
    """Append by psycopg: eight threads, each with an aggregate of its own."""
    engine = create_engine(bench.url.replace("postgresql:", "postgresql+psycopg:"), pool_size=WRITERS)
    sessions = sessionmaker(engine)
    journal = Journal(Database(sessions), bench.settings, source="bench")

    def writer(number: int) -> None:
        account = Account(account=f"a-{number}")
        for _ in range(count // WRITERS):
            with sessions.begin() as session:
                account.record(Deposited(account=account.account, cents=1))
                journal.append(account, session)

    await side_by_side(writer)
    engine.dispose()


async def side_by_side(writer: Callable[[int], None]) -> None:
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(WRITERS) as pool:
        await asyncio.gather(*(loop.run_in_executor(pool, writer, number) for number in range(WRITERS)))


async def append(bench: Bench, count: int, figures: Figures) -> None:
    figures["append, events/s"].append(await timed(count, on_driver(bench, count)))


async def append_in_sessions(bench: Bench, count: int, figures: Figures) -> None:
    figures["append in sessions, events/s"].append(await timed(count, on_loop(bench, count, loads=False)))


async def append_in_threads(bench: Bench, count: int, figures: Figures) -> None:
    figures["append in threads, events/s"].append(await timed(count, in_threads(bench, count)))


async def load_and_append(bench: Bench, count: int, figures: Figures) -> None:
    figures["load of up to 10 and append, events/s"].append(await timed(count, on_loop(bench, count, loads=True)))


async def append_with_a_relay(bench: Bench, count: int, figures: Figures) -> None:
    """Append while a relay gives positions and sends, to nobody, in the same process."""
    emit: Any = lambda fact: None  # noqa: E731
    relay = Relay(
        bench.database, cast("Broker", Sink()), bench.settings, emit=emit, spans=Spans(), clock=REAL, luck=random.random
    )
    relaying = asyncio.create_task(relay.run())
    figures["append with a relay, events/s"].append(await timed(count, on_loop(bench, count, loads=False)))
    relay.stop()
    await relaying


@cache
def their_account() -> Any:
    """Return their account: a class that may be made once in a process."""
    from eventsourcing.domain import Aggregate as TheirAggregate
    from eventsourcing.domain import event

    class TheirAccount(TheirAggregate):  # type: ignore[misc]
        @event("Opened")
        def __init__(self) -> None:
            self.cents = 0

        @event("Deposited")
        def deposit(self, cents: int) -> None:
            self.cents += cents

    return TheirAccount


async def eventsourcing(bench: Bench, count: int, figures: Figures, *, loads: bool = False, functions: bool) -> None:
    """Append with eventsourcing's application and aggregates: eight threads, each with an aggregate of its own."""
    from eventsourcing.application import Application

    account_class = their_account()
    await bench.execute(f"create schema {bench.name}_theirs")
    parts = urlsplit(bench.url)
    application: Any = Application(
        env={
            "PERSISTENCE_MODULE": "eventsourcing.postgres",
            "POSTGRES_DBNAME": parts.path.strip("/"),
            "POSTGRES_HOST": parts.hostname or "localhost",
            "POSTGRES_PORT": str(parts.port or 5432),
            "POSTGRES_USER": parts.username or "",
            "POSTGRES_PASSWORD": parts.password or "",
            "POSTGRES_SCHEMA": f"{bench.name}_theirs",
            "POSTGRES_POOL_SIZE": str(WRITERS),
            "POSTGRES_ENABLE_DB_FUNCTIONS": "y" if functions else "n",
        }
    )

    def writer(number: int) -> None:
        account = account_class()
        application.save(account)
        for done in range(count // WRITERS):
            if loads and done % OLD == 0:
                account = account_class()
            elif loads:
                account = application.repository.get(account.id)
            account.deposit(1)
            application.save(account)

    what = "load of up to 10 and append" if loads else "append"
    how = "eventsourcing with functions" if functions else "eventsourcing"
    try:
        figures[f"{what}, {how}, events/s"].append(await timed(count, side_by_side(writer)))
    finally:
        application.close()
        await bench.execute(f"drop schema {bench.name}_theirs cascade")


async def catch_up(bench: Bench, count: int, figures: Figures) -> None:
    """A projection whose function does nothing reads a journal from its first event on."""
    now, history = datetime.now(UTC), bench.database.history(bench.name)
    for begin in range(0, count, 1000):
        numbers = range(begin, min(begin + 1000, count))
        events = [seal(Deposited(account=f"a-{n % 100}", cents=n), source="bench", now=now) for n in numbers]
        await bench.database.run(write_past(history, [Outgoing(envelope) for envelope in events]))
    await bench.execute(f"analyze {bench.name}.events", f"analyze {bench.name}.positions")
    projection, seen = Projection("nothing"), 0

    @projection.on(Deposited)
    async def note(event: Deposited, at: Recorded, session: Any) -> None:
        nonlocal seen
        seen += 1

    projector = Projector(projection, bench.database, bench.settings, lambda fact: None, REAL)
    with profiled():
        figures["projection catch-up, events/s"].append(await timed(count, projector.drain()))
    assert seen == count


@contextmanager
def profiled() -> Iterator[None]:
    """Print where the time goes, with PROFILE set."""
    if "PROFILE" not in os.environ:
        yield
        return
    import cProfile
    import pstats

    with cProfile.Profile() as profile:
        yield
    pstats.Stats(profile).sort_stats("tottime").print_stats(25)


RATIOS = (
    ("append, events/s", "append, eventsourcing, events/s", "at least 3"),
    ("append, events/s", "append, eventsourcing with functions, events/s", "no target"),
    ("append in sessions, events/s", "append, eventsourcing, events/s", "no target"),
    ("append in threads, events/s", "append, eventsourcing, events/s", "no target"),
    ("append with a relay, events/s", "append, eventsourcing, events/s", "no target"),
    (
        "load of up to 10 and append, events/s",
        "load of up to 10 and append, eventsourcing, events/s",
        "no target",
    ),
)
CATCH_UP = 10_000


async def measure(postgres: str, *, share: float, only: str) -> Figures:
    """Run everything three times, interleaved: a busy moment of the machine touches all."""
    theirs = [
        ("eventsourcing", partial(eventsourcing, functions=False), 4_000),
        ("eventsourcing functions", partial(eventsourcing, functions=True), 4_000),
        ("eventsourcing load", partial(eventsourcing, functions=False, loads=True), 4_000),
    ]
    steps: list[tuple[str, Callable[..., Awaitable[None]], int]] = [
        ("append", append, 8_000),
        ("append sessions", append_in_sessions, 8_000),
        ("append threads", append_in_threads, 8_000),
        ("append relay", append_with_a_relay, 8_000),
        ("append load", load_and_append, 4_000),
        *(theirs if find_spec("eventsourcing") is not None else []),
        ("catch-up", catch_up, 50_000),
    ]
    figures: Figures = {}
    for number in range(RUNS):
        for name, step, count in steps:
            if only in name:
                print(f"run {number + 1} of {RUNS}: {name}", file=sys.stderr, flush=True)
                async with Bench(postgres, f"bench_{secrets.token_hex(4)}") as bench:
                    taken = _Taken()
                    await step(bench, max(80, int(count * share)), taken)
                for label, values in taken.items():
                    figures.setdefault(label, []).extend(values)
    return figures


class _Taken(dict[str, list[float]]):
    """The figures of one step."""

    def __missing__(self, label: str) -> list[float]:
        return self.setdefault(label, [])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", help="file for the figures")
    parser.add_argument("--quick", action="store_true", help="a fiftieth of the events: whether it runs, not how fast")
    parser.add_argument("--only", default="", help="steps that have this in their names")
    options = parser.parse_args()
    with servers.postgres_server() as postgres:
        figures = run(measure(postgres.url, share=0.02 if options.quick else 1.0, only=options.only))
    medians = {label: statistics.median(values) for label, values in figures.items()}
    for label, value in medians.items():
        print(f"{label:55} {value:12,.0f}   ({', '.join(f'{each:,.0f}' for each in figures[label])})")
    ratios = {}
    for first, second, wanted in RATIOS:
        if first in medians and second in medians:
            ratios[f"{first} / {second}"] = ratio = medians[first] / medians[second]
            print(f"{ratio:6.2f} ({wanted}): {first} / {second}")
    if "projection catch-up, events/s" in medians:
        print(f"projection catch-up: at least {CATCH_UP:,} a second is wanted")
    if find_spec("eventsourcing") is None:
        print("eventsourcing is not installed: it is not measured")
    if options.json:
        written = {"medians": medians, "ratios": ratios, "cores": os.cpu_count()}
        Path(options.json).write_text(json.dumps(written, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
