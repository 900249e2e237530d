"""What a transaction of a handler does, on each kind of database, driver and session: one suite for all."""

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from databases import KINDS, Bank, a_bank, a_lock, banks, kinds, openers
from pydantic import SecretStr
from running import a_worker, publish_all, running
from sqlalchemy import Column, Connection, Integer, String, Table, create_engine, text
from sqlalchemy.event import listens_for
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import registry
from waiting import LIMIT, Facts

from holdfast import (
    ConfigurationError,
    Context,
    Event,
    Following,
    Metadata,
    Progress,
    Publisher,
    Retry,
    RetryLater,
    Settings,
    Worker,
    fixed,
)
from holdfast.config import IdempotencySettings
from holdfast.consumer import Dependencies
from holdfast.events import derived_id, seal
from holdfast.sql import Database, Outgoing, Steps, ddl
from holdfast.telemetry import InboxAnswered, Paused, Settled, Stopped

ONCE, AT_ONCE = Retry(attempts=1), Retry(attempts=3, backoff=fixed(0.1, jitter=False))
SQLITE = KINDS[0]

SESSIONS = [each for each in kinds() if each.id in ("sqlite-session", "sqlite-async-session", "asyncpg-session")]

bank = banks(kinds())


class Paid(Event, type="paid", key="account"):
    account: str
    cents: int


class Kept(Event, type="kept", key="account"):
    account: str
    cents: int


class Booked(Event, type="booked", key="account"):
    account: str


@pytest.fixture
def settings(unique: str) -> Settings:
    """A broker in this process, no claim store, and a schema of this test's own."""
    return Settings(
        _env_file=None,  # type: ignore[call-arg]
        broker={"url": f"memory://{unique}", "exchange": unique},  # type: ignore[arg-type]
        sql={"schema": unique},  # type: ignore[arg-type]
    )


def a_ledger(settings: Settings, facts: Facts, bank: Bank, act: Any, retry: Retry = ONCE, **options: Any) -> Worker:
    """A worker with one handler, in transactions of the bank."""
    worker = a_worker(settings, facts)

    @worker.handler(Booked, idempotent=False)
    async def watch(event: Booked) -> None: ...

    worker.handler(Paid, name="book", within=bank.database, retry=retry, **options)(bank.handler(act))
    return worker


async def publish(settings: Settings, event: Event, metadata: Metadata | None = None) -> Metadata:
    async with Publisher(settings) as publisher:
        return await publisher.publish(event, metadata=metadata)


def booking(bank: Bank) -> Any:
    def act(event: Paid, ctx: Context) -> Iterator[str]:
        yield f"insert into {bank.accounts} values ('{event.account}', {event.cents})"
        ctx.publish(Booked(account=event.account))

    return act


async def booked(facts: Facts, outcome: str, *, count: int = 1) -> list[Settled]:
    """The ends of deliveries to the handler that books, once there are so many."""
    return await facts.until(Settled, lambda fact: fact.handler == "book" and fact.outcome == outcome, count=count)


async def relayed(facts: Facts) -> list[Settled]:
    """The deliveries of the events that it published, once there is one."""
    return await facts.until(Settled, lambda fact: fact.handler == "watch")


async def test_effect_inbox_row_and_events_are_committed_together(bank: Bank, settings: Settings) -> None:
    facts = Facts()

    async with running(a_ledger(settings, facts, bank, booking(bank))):
        sent = await publish(settings, Paid(account="a", cents=5))
        await booked(facts, "handled")
        [event] = await relayed(facts)

    assert await bank.ask(f"select account, cents from {bank.accounts}") == [("a", 5)]
    assert [await bank.count(table) for table in ("inbox", "events")] == [1, 0]
    assert (event.metadata.key, event.metadata.causation_id) == ("a", sent.event_id)
    assert event.metadata.caused_by == f"{settings.broker.exchange}.w.book"
    assert event.metadata.event_id == derived_id(sent.event_id, "book", 0)


@pytest.mark.parametrize("bank", openers(), indirect=True)
async def test_a_rehearsal_leaves_the_database_as_it_is_and_publishes_all_the_same(
    bank: Bank, settings: Settings
) -> None:
    facts = Facts()

    def write() -> Steps[None]:
        yield bank.statements.insert([Outgoing(seal(Booked(account="waits"), source="shop"))])

    await bank.database.run(write())
    async with running(a_ledger(settings, facts, bank, booking(bank)), dependencies=Dependencies(rehearses=True)):
        sent = await publish(settings, Paid(account="a", cents=5))
        await publish(settings, Paid(account="a", cents=5), sent)
        await booked(facts, "handled", count=2)
        [first, second] = await facts.until(Settled, lambda fact: fact.handler == "watch", count=2)

    assert [await bank.count(table) for table in ("inbox", "events", "accounts")] == [0, 1, 0]
    assert {first.metadata.event_id, second.metadata.event_id} == {derived_id(sent.event_id, "book", 0)}


@pytest.mark.parametrize("bank", openers(), indirect=True)
async def test_a_followed_request_is_done_once_what_its_transaction_published_is(
    bank: Bank, settings: Settings
) -> None:
    facts, claims = Facts(), IdempotencySettings(url=SecretStr(settings.broker.url.get_secret_value()))
    claiming = settings.model_copy(update={"idempotency": claims})

    async with running(a_ledger(claiming, facts, bank, booking(bank))), Publisher(claiming) as publisher:
        sent = await publisher.publish(Paid(account="a", cents=5), follow=True)
        progress = await Following(claiming).until_done(sent.follow, within=LIMIT)
        handled = [fact.handler for fact in facts.of(Settled)]

    assert progress == Progress("done", handled=2)
    assert sorted(handled) == ["book", "watch"]


@pytest.mark.parametrize("bank", kinds(server=True)[:1] + kinds(server=False)[:1], indirect=True)
async def test_thousands_of_events_of_one_transaction_are_committed(bank: Bank, settings: Settings) -> None:
    facts = Facts()

    def act(event: Paid, ctx: Context) -> Iterator[str]:
        for _ in range(2500):
            ctx.publish(Booked(account=event.account))
        yield "select 1"

    async with running(a_ledger(settings, facts, bank, act)):
        await publish(settings, Paid(account="a", cents=5))
        await booked(facts, "handled")
        await facts.until(Settled, lambda fact: fact.handler == "watch", count=2500)

    assert await bank.count("events") == 0


async def test_a_handler_that_fails_leaves_nothing_and_its_next_attempt_all(bank: Bank, settings: Settings) -> None:
    facts, left = Facts(), list[int]()

    def act(event: Paid, ctx: Context) -> Iterator[str]:
        yield from booking(bank)(event, ctx)
        if ctx.attempt == 1:
            raise RetryLater(after=1)

    async with running(a_ledger(settings, facts, bank, act, AT_ONCE)):
        await publish_all(settings, [Paid(account="a", cents=5)])
        await booked(facts, "postponed")
        left += [await bank.count(table) for table in ("accounts", "inbox", "events")]
        await booked(facts, "handled")
        await relayed(facts)

    assert left == [0, 0, 0]
    assert [await bank.count(table) for table in ("accounts", "inbox")] == [1, 1]


async def test_an_event_that_was_handled_is_acked_without_a_run(bank: Bank, settings: Settings) -> None:
    facts = Facts()

    async with running(a_ledger(settings, facts, bank, booking(bank))):
        sent = await publish(settings, Paid(account="a", cents=5))
        await booked(facts, "handled")
        await publish(settings, Paid(account="a", cents=5), sent)
        await booked(facts, "duplicate")

    assert await bank.count("accounts") == 1
    assert [fact.result for fact in facts.of(InboxAnswered)] == ["fresh", "duplicate"]


async def test_a_known_id_with_another_payload_is_dead_lettered(bank: Bank, settings: Settings) -> None:
    facts = Facts()

    async with running(a_ledger(settings, facts, bank, booking(bank))):
        sent = await publish(settings, Paid(account="a", cents=5))
        await booked(facts, "handled")
        await publish(settings, Paid(account="a", cents=6), sent)
        [dead] = await booked(facts, "dead_lettered")

    assert dead.reason == "fingerprint-mismatch"
    assert await bank.count("accounts") == 1


@pytest.mark.parametrize("idempotent", [True, False])
async def test_a_handler_that_catches_an_error_of_the_database_is_done_only_if_its_work_is(
    bank: Bank, settings: Settings, *, idempotent: bool
) -> None:
    facts, worker = Facts(), a_worker(settings, Facts())
    worker.configure(listeners=[facts.record])
    book = bank.catching(f"insert into {bank.accounts} values ('a', 5)", "insert into nowhere values (1)")
    worker.handler(Paid, name="book", within=bank.database, retry=ONCE, idempotent=idempotent)(book)

    async with running(worker):
        await publish_all(settings, [Paid(account="a", cents=5)])
        [ended] = await facts.until(Settled)

    done = 0 if bank.database.dialect == "postgresql" else 1  # PostgreSQL ends a transaction by any error
    assert (ended.outcome, await bank.count("accounts")) == (("dead_lettered", "handled")[done], done)
    assert await bank.count("inbox") == (done if idempotent else 0)
    assert done or "savepoint" in str(ended.error)


@pytest.mark.parametrize("bank", openers(), indirect=True)
async def test_a_handler_may_change_its_event(bank: Bank, settings: Settings) -> None:
    facts, worker = Facts(), a_worker(settings, Facts())
    worker.configure(listeners=[facts.record])

    def act(event: dict[str, Any], ctx: Context) -> Iterator[str]:
        yield f"insert into {bank.accounts} values ('{event.pop('account')}', 5)"

    worker.handler("paid", name="book", within=bank.database, retry=ONCE, key="account")(bank.handler(act))

    async with running(worker):
        for outcome in ("handled", "duplicate"):
            await publish_all(settings, [Paid(account="a", cents=5)])
            await booked(facts, outcome)

    assert await bank.count("accounts") == 1


async def test_a_handler_that_rolls_back_by_a_statement_is_not_taken_for_done(bank: Bank, settings: Settings) -> None:
    facts, worker = Facts(), a_worker(settings, Facts())
    worker.configure(listeners=[facts.record])
    book = bank.catching(f"insert into {bank.accounts} values ('a', 5)", "rollback")
    worker.handler(Paid, name="book", within=bank.database, retry=ONCE)(book)

    async with running(worker):
        await publish_all(settings, [Paid(account="a", cents=5)])
        [dead] = await booked(facts, "dead_lettered")

    assert "rollback" in str(dead.error)
    assert [await bank.count(table) for table in ("inbox", "accounts")] == [0, 0]


async def test_a_handler_that_commits_fails_and_is_not_taken_for_done(bank: Bank, settings: Settings) -> None:
    facts, worker = Facts(), a_worker(settings, Facts())
    worker.configure(listeners=[facts.record])
    worker.handler(Paid, name="book", within=bank.database, retry=ONCE)(bank.committing())

    async with running(worker):
        await publish_all(settings, [Paid(account="a", cents=5)])
        [dead] = await booked(facts, "dead_lettered")

    assert "commit" in str(dead.error)
    assert await bank.count("inbox") == 0


async def test_without_idempotence_there_is_no_inbox_row(bank: Bank, settings: Settings) -> None:
    facts = Facts()

    async with running(a_ledger(settings, facts, bank, booking(bank), idempotent=False)):
        await publish_all(settings, [Paid(account="a", cents=5)])
        await booked(facts, "handled")
        await relayed(facts)

    assert [await bank.count(table) for table in ("accounts", "inbox")] == [1, 0]


@pytest.mark.parametrize("bank", kinds(server=True), indirect=True)
@pytest.mark.parametrize(("state", "number"), [("40001", 1213), ("40P01", 1205), ("55P03", 3572)])
async def test_a_transaction_that_gave_way_runs_again_and_spends_no_attempt(
    bank: Bank, state: str, number: int, settings: Settings
) -> None:
    facts, runs = Facts(), list[int]()

    def act(event: Paid, ctx: Context) -> Iterator[str]:
        runs.append(ctx.attempt)
        yield from booking(bank)(event, ctx)
        if len(runs) < 3:
            yield (
                f"do $$ begin raise exception using errcode = '{state}'; end $$"
                if bank.kind.is_postgres
                else (f"signal sqlstate '45000' set mysql_errno = {number}")
            )

    async with running(a_ledger(settings, facts, bank, act)):
        await publish_all(settings, [Paid(account="a", cents=5)])
        await booked(facts, "handled")
        await relayed(facts)

    assert runs == [1, 1, 1]
    assert [await bank.count(table) for table in ("accounts", "inbox")] == [1, 1]


@pytest.mark.parametrize("bank", kinds(server=True), indirect=True)
async def test_an_event_in_another_transaction_waits_and_spends_no_attempt(
    bank: Bank, request: pytest.FixtureRequest, settings: Settings
) -> None:
    facts, attempts = Facts(), list[int]()

    def act(event: Paid, ctx: Context) -> Iterator[str]:
        attempts.append(ctx.attempt)
        yield from booking(bank)(event, ctx)
        if len(attempts) == 1:
            yield wait

    url = request.getfixturevalue("postgres_url" if bank.kind.is_postgres else "mariadb_url")
    async with a_lock(bank, url) as (wait, release), running(a_ledger(settings, facts, bank, act)):
        sent = await publish(settings, Paid(account="a", cents=5))
        await publish(settings, Paid(account="a", cents=5), sent)
        await facts.until(InboxAnswered, lambda fact: fact.result == "busy")
        await release()
        await booked(facts, "handled")
        await booked(facts, "duplicate")

    assert attempts == [1]
    assert await bank.count("accounts") == 1


class Entry:
    """A row of the accounts, as the ORM maps it."""

    def __init__(self, account: str, cents: int) -> None:
        self.account, self.cents = account, cents


@contextmanager
def mapped(bank: Bank) -> Iterator[None]:
    schema, _, name = bank.accounts.rpartition(".")
    columns = Column("account", String, primary_key=True), Column("cents", Integer)
    mapping = registry()
    mapping.map_imperatively(Entry, Table(name, mapping.metadata, *columns, schema=schema or None))
    try:
        yield
    finally:
        mapping.dispose()


def keeping_back(bank: Bank, facts: Facts, settings: Settings, go: asyncio.Event) -> Worker:
    """A worker whose handler publishes when its session sends what it kept back: at the end. What it publishes waits
    for `go`."""
    worker = a_worker(settings, facts)

    @worker.handler(Booked, idempotent=False)
    async def watch(event: Booked) -> None:
        await go.wait()

    def keep(event: Kept, ctx: Context, session: Any) -> None:
        @listens_for(getattr(session, "sync_session", session), "before_flush")
        def publish(*_: object) -> None:
            ctx.publish(Booked(account=event.account))

        session.add(Entry(event.account, event.cents))

    async def on_loop(event: Kept, ctx: Context, session: Any) -> None:
        keep(event, ctx, session)

    ours = on_loop if bank.database.is_async else keep
    worker.handler(Kept, name="keep", within=bank.database, retry=ONCE)(ours)
    return worker


@pytest.mark.parametrize("bank", SESSIONS, indirect=True)
@pytest.mark.parametrize("is_followed", [False, True], ids=["unfollowed", "followed"])
async def test_what_is_published_as_the_session_flushes_is_committed_too(
    bank: Bank, settings: Settings, is_followed: bool
) -> None:
    facts, go = Facts(), asyncio.Event()
    if is_followed:
        url = SecretStr(f"memory://{settings.broker.exchange}")
        settings = settings.model_copy(update={"idempotency": IdempotencySettings(url=url)})

    with mapped(bank):
        async with (
            running(keeping_back(bank, facts, settings, go)),
            Publisher(settings) as publisher,
            Following(settings) as following,
        ):
            sent = await publisher.publish(Kept(account="a", cents=5), follow=is_followed)
            await facts.until(Settled, lambda fact: fact.handler == "keep")
            meanwhile = await following.progress(sent.follow)
            go.set()
            [event] = await relayed(facts)
            progress = await following.until_done(sent.follow, within=LIMIT) if is_followed else meanwhile

    assert event.metadata.causation_id == sent.event_id
    assert await bank.ask(f"select account, cents from {bank.accounts}") == [("a", 5)]
    if is_followed:
        assert (meanwhile.state, progress) == ("open", Progress("done", handled=2))


@pytest.mark.parametrize("bank", [each for each in SESSIONS if each.id == "asyncpg-session"], indirect=True)
async def test_a_class_of_sessions_with_ways_of_its_own_keeps_them(bank: Bank, settings: Settings) -> None:
    facts, called = Facts(), list[str]()

    class Own(AsyncSession):
        async def commit(self) -> None:
            if self.info.get("books"):
                called.append("commit")
                await self.execute(text(f"insert into {bank.accounts} values ('own', 1)"))
            await super().commit()

        async def close(self) -> None:
            if self.info.get("books"):
                called.append("close")
            await super().close()

    engine: Any = bank.database.opener.engine  # type: ignore[union-attr]
    worker = a_worker(settings, facts)

    @worker.handler(Paid, within=Database(async_sessionmaker(engine, class_=Own)), name="book")
    async def book(event: Paid, ctx: Context, session: Own) -> None:
        session.info["books"] = True
        await session.execute(text(f"insert into {bank.accounts} values ('a', 5)"))

    async with running(worker):
        await publish(settings, Paid(account="a", cents=5))
        await booked(facts, "handled")

    assert called == ["commit", "close"]
    assert await bank.ask(f"select account, cents from {bank.accounts} order by 1") == [("a", 5), ("own", 1)]


@pytest.mark.parametrize("bank", [each for each in SESSIONS if each.id == "asyncpg-session"], indirect=True)
async def test_a_database_that_does_not_answer_keeps_no_worker_from_its_end(bank: Bank, settings: Settings) -> None:
    facts = Facts()
    worker = a_ledger(settings, facts, bank, booking(bank))
    async with running(worker), bank.transaction() as within:
        await bank.kind.execute(within, f"lock table {bank.statements.table('cursors')} in access exclusive mode")
        worker.stop()
        [stopped] = await facts.until(Stopped)

    assert stopped.unfinished == 0


@pytest.mark.parametrize("bank", kinds(server=False), indirect=True)
async def test_a_locked_database_pauses_the_queue_and_spends_no_attempt(bank: Bank, settings: Settings) -> None:
    facts, attempts = Facts(), list[int]()

    def act(event: Paid, ctx: Context) -> Iterator[str]:
        attempts.append(ctx.attempt)
        yield from booking(bank)(event, ctx)

    with closing(sqlite3.connect(bank.path, isolation_level=None, check_same_thread=False)) as another:
        async with running(a_ledger(settings, facts, bank, act)):
            await asyncio.to_thread(another.execute, "begin immediate")  # the relay may be writing
            await publish_all(settings, [Paid(account="a", cents=5)])
            await facts.until(Paused, lambda fact: fact.reason == "database")
            another.execute("rollback")
            await booked(facts, "handled")

    assert attempts == [1]
    assert [await bank.count(table) for table in ("accounts", "inbox")] == [1, 1]


async def test_a_lock_that_comes_while_a_handler_runs_lets_it_run_again(settings: Settings, tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'shop.db'}", connect_args={"timeout": 0.1})
    with engine.begin() as connection:
        for statement in (*ddl(settings.sql.schema, dialect="sqlite"), "create table entries (account text)"):
            connection.execute(text(statement))
    facts, runs = Facts(), list[int]()
    worker = a_worker(settings, facts)

    with closing(sqlite3.connect(tmp_path / "shop.db", isolation_level=None, check_same_thread=False)) as another:

        @worker.handler(Paid, name="book", within=Database(engine), retry=ONCE, idempotent=False)
        def book(event: Paid, ctx: Context, connection: Connection) -> None:
            runs.append(ctx.attempt)
            another.execute("begin immediate" if len(runs) == 1 else "rollback")
            connection.execute(text("insert into entries values ('a')"))

        async with running(worker):
            await publish_all(settings, [Paid(account="a", cents=5)])
            await booked(facts, "handled")
    engine.dispose()

    assert runs == [1, 1]


async def test_a_database_without_the_tables_stops_the_worker_in_one_line(settings: Settings, tmp_path: Path) -> None:
    worker = a_worker(settings, Facts())

    @worker.handler(Paid, within=Database.sqlite(str(tmp_path / "empty.db")))
    def book(event: Paid, ctx: Context, connection: Any) -> None: ...

    with pytest.raises(ConfigurationError, match=r"^database empty\.db: .*holdfast sql schema") as failure:
        await worker.run()

    assert len(str(failure.value).splitlines()) == 1


async def test_another_version_of_the_schema_stops_the_worker_in_one_line(
    settings: Settings, unique: str, tmp_path: Path
) -> None:
    async with a_bank(SQLITE, "", unique, tmp_path) as bank:
        await bank.ask(f"update {unique}_cursors set position = 7 where name = 'schema'")
        worker = a_ledger(settings, Facts(), bank, booking(bank))

        with pytest.raises(ConfigurationError, match=r"its Holdfast schema has version 7, this release needs 1$"):
            await worker.run()
