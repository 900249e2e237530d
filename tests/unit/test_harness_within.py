"""Handlers in transactions, in a harness: on SQLite in memory, in virtual time."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from holdfast import Context, Event, Retry, Worker, fixed
from holdfast.journal import Projection, Recorded
from holdfast.sql import Database, ddl
from holdfast.testing import Harness


class Paid(Event, type="paid", key="account"):
    account: str


class Booked(Event, type="booked", key="account"):
    account: str


@pytest.fixture
async def database() -> Database[sqlite3.Connection]:
    memory = Database.sqlite(":memory:")
    for statement in (*ddl(dialect="sqlite"), "create table entries (account text)"):
        await ask(memory, statement)
    return memory


async def ask(database: Database[Any], statement: str) -> list[tuple[Any, ...]]:
    def steps() -> Any:
        return (yield statement, {})

    rows: list[tuple[Any, ...]] = await database.run(steps())
    return rows


def a_ledger(database: Database[sqlite3.Connection]) -> Worker:
    """A worker that books at its third attempt, hours later, and one that hears of it."""
    worker = Worker("ledger")

    @worker.handler(Paid, within=database, retry=Retry(attempts=3, backoff=fixed(3600)))
    def book(event: Paid, ctx: Context, connection: sqlite3.Connection) -> None:
        connection.execute("insert into entries values (?)", (event.account,))
        ctx.publish(Booked(account=event.account))
        if ctx.attempt < 3:
            raise TimeoutError

    @worker.handler(Booked)
    async def thank(event: Booked) -> None: ...

    return worker


async def test_a_transaction_runs_again_after_hours_and_its_event_is_handled(
    database: Database[sqlite3.Connection],
) -> None:
    async with Harness(a_ledger(database)) as h:
        await h.publish(Paid(account="a"))
        await h.settle()

        assert [(retry.handler, retry.attempt) for retry in h.retries] == [("book", 1), ("book", 2)]
        assert sorted(run.handler for run in h.handled) == ["book", "thank"]
        assert [published.event for published in h.published] == [Booked(account="a")]

    assert await ask(database, "select account from entries") == [("a",)]
    assert await ask(database, "select count(*) from holdfast_events") == [(0,)]


async def test_a_crash_before_the_ack_changes_nothing_twice(database: Database[sqlite3.Connection]) -> None:
    async with Harness(a_ledger(database)) as h:
        h.crash_before_ack(2)
        await h.publish(Paid(account="a"))
        await h.settle()

    assert await ask(database, "select account from entries") == [("a",)]


async def test_an_event_that_comes_twice_is_booked_once(database: Database[sqlite3.Connection]) -> None:
    async with Harness(a_ledger(database)) as h:
        h.duplicate_every_message()
        await h.publish(Paid(account="a"))
        await h.settle()

        assert sorted(run.handler for run in h.handled) == ["book", "thank"]

    assert await ask(database, "select account from entries") == [("a",)]


async def test_an_event_that_a_def_handler_returns_is_a_dead_letter_and_nothing_commits(
    database: Database[sqlite3.Connection],
) -> None:
    worker = Worker("ledger")

    @worker.handler(Paid, within=database)
    def book(event: Paid, ctx: Context, connection: sqlite3.Connection) -> Any:
        connection.execute("insert into entries values (?)", (event.account,))
        return Booked(account=event.account)

    async with Harness(worker) as h:
        await h.publish(Paid(account="a"))
        await h.settle()

        assert [letter.reason for letter in h.dead_letters] == ["refused"]

    assert await ask(database, "select account from entries") == []


async def test_a_worker_of_read_models_alone_has_started_when_the_harness_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_SQL__KEEP", "forever")
    kept: Database[sqlite3.Connection] = Database.sqlite(":memory:")
    for statement in ddl(dialect="sqlite", keeps=True):
        await ask(kept, statement)
    has_started, read = False, list[str]()

    @asynccontextmanager
    async def slowly() -> AsyncIterator[None]:
        nonlocal has_started
        for _ in range(1000):
            await asyncio.sleep(0)
        has_started = True
        yield

    model, reader, payer = Projection("accounts"), Worker("reader", lifespan=slowly), Worker("payer")
    reader.include(model, within=kept)

    @model.on(Booked)
    def enter(event: Booked, at: Recorded, connection: sqlite3.Connection) -> None:
        read.append(event.account)

    @payer.handler(Paid, within=kept)
    def pay(event: Paid, ctx: Context, connection: sqlite3.Connection) -> None:
        ctx.publish(Booked(account=event.account))

    async with Harness(payer, reader) as h:
        assert has_started
        await h.publish(Paid(account="a"))
        await h.settle()

        assert read == ["a"]
