"""Events published in the caller's own transaction, by each kind of session and connection: one suite for all."""

import json
import math
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from apps import APPS
from builders import NOON
from databases import Bank, banks, kinds
from sqlalchemy import create_engine, event, text
from sqlalchemy.orm import Session

from holdfast import ConfigurationError, Event, Metadata, PublishError, Settings, TooLarge
from holdfast.events import uuid7
from holdfast.sql import Outbox, OutsideTransaction
from holdfast.sql.errors import trouble

SOME_SQLITE = next(parameter for parameter in kinds() if parameter.id == "sqlite-session")
SESSIONS = [parameter for parameter in kinds(server=True) if "session" in str(parameter.id)]
bank = banks(kinds())


class Ordered(Event, type="ordered", key="order"):
    order: str


@pytest.fixture
def outbox(unique: str) -> Outbox:
    settings = Settings(_env_file=None, sql={"schema": unique}, worker={"max_body": 100})  # type: ignore[call-arg, arg-type]
    return Outbox(settings, source="shop")


async def orders(bank: Bank) -> list[str]:
    """The keys of the events that are written, in order."""
    return [key for (key,) in await bank.ask(f"select e.key from {bank.statements.table('events')} e order by seq")]


async def test_an_event_is_written_with_the_commit(bank: Bank, outbox: Outbox) -> None:
    async with bank.transaction() as within:
        sent = await bank.publish(outbox, within, Ordered(order="o-1"), delay=5)

    columns = "event_id, event_type, e.key, source, shard is not null, due_at is not null"
    [row] = await bank.ask(f"select {columns} from {bank.statements.table('events')} e")
    assert row == (sent.event_id, "ordered", "o-1", "shop", True, True)


async def test_an_outbox_without_its_tables_says_how_to_make_them(bank: Bank, unique: str) -> None:
    outbox = Outbox(Settings(_env_file=None, sql={"schema": f"{unique}_none"}))  # type: ignore[call-arg, arg-type]

    with pytest.raises(Exception, match=r"no such table|does(n't| not) exist") as caught:
        async with bank.transaction() as within:
            await bank.publish(outbox, within, Ordered(order="o-1"))

    error = caught.value
    assert error.__notes__ == [
        "Holdfast's tables are not in this database: make them with `holdfast sql schema --apply`"
    ]
    assert error.__cause__ is not error  # whoever follows the causes comes to an end
    assert trouble(error) is None


async def test_an_event_of_a_transaction_that_is_rolled_back_is_not_written(bank: Bank, outbox: Outbox) -> None:
    async def fail() -> None:
        async with bank.transaction() as within:
            await bank.publish(outbox, within, Ordered(order="o-1"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()

    assert await orders(bank) == []


async def test_events_are_written_in_the_order_in_which_they_were_published(bank: Bank, outbox: Outbox) -> None:
    async with bank.transaction() as within:
        for number in range(20):
            await bank.publish(outbox, within, Ordered(order=f"o-{number}"))

    assert await orders(bank) == [f"o-{number}" for number in range(20)]


async def test_metadata_of_another_event_are_refused(bank: Bank, outbox: Outbox) -> None:
    of_another = Metadata(uuid7(), "ordered", NOON, version=2)

    async with bank.transaction() as within:
        with pytest.raises(PublishError, match="version=2, and the event has 1"):
            await bank.publish(outbox, within, Ordered(order="o-1"), metadata=of_another)

    assert await orders(bank) == []


async def test_metadata_that_is_given_is_written(bank: Bank, outbox: Outbox) -> None:
    given = Metadata(event_id=uuid7(), event_type="ordered", time=NOON, correlation_id="request-1")

    async with bank.transaction() as within:
        await bank.publish(outbox, within, Ordered(order="o-1"), metadata=given)

    [row] = await bank.ask(f"select event_id, correlation_id from {bank.statements.table('events')}")
    assert row == (given.event_id, "request-1")


async def test_an_id_and_headers_that_are_given_are_written(bank: Bank, outbox: Outbox) -> None:
    given = {"tenant": "t-1", "number": 7, "no NUL": r"\u0000"}

    async with bank.transaction() as within:
        sent = await bank.publish(outbox, within, Ordered(order="o-1"), event_id="mine", headers=given)

    [(event_id, headers)] = await bank.ask(
        f"select event_id, cast(headers as char(2000)) from {bank.statements.table('events')}"
    )
    assert (sent.event_id, event_id, json.loads(headers)) == ("mine", "mine", given)


@pytest.mark.parametrize(
    "options",
    [
        {"event_id": ""},
        {"event_id": "mine", "metadata": Metadata(uuid7(), "ordered", NOON)},
        {"headers": {"event-id": "another"}},
        {"headers": {"seen": b"bytes"}},
        {"headers": {"seen": math.inf}},
        {"headers": {"seen": "a\x00b"}},
        {"headers": {"seen": [{"\\\x00": 1}]}},
    ],
    ids=["no id", "two ids", "a header of Holdfast's", "bytes", "infinite", "NUL", "NUL after a backslash"],
)
async def test_an_id_and_headers_that_cannot_be_kept_are_refused(outbox: Outbox, options: dict[str, Any]) -> None:
    with closing(sqlite3.connect(":memory:")) as connection, pytest.raises(PublishError):
        outbox.publish(connection, Ordered(order="o-1"), **options)


@pytest.mark.parametrize("bank", [SOME_SQLITE, *SESSIONS], indirect=True)
async def test_thousands_of_events_of_one_session_are_written_in_order(bank: Bank, outbox: Outbox) -> None:
    async with bank.transaction() as session:
        for number in range(2500):
            outbox.publish(session, Ordered(order=f"o-{number}"))

    assert await orders(bank) == [f"o-{number}" for number in range(2500)]


async def begin_nested(session: Any) -> Any:
    """A savepoint."""
    nested = session.begin_nested()
    return await nested if hasattr(session, "sync_session") else nested


async def end(session: Any, ending: Any) -> None:
    result = ending()
    if hasattr(session, "sync_session"):
        await result


@pytest.mark.parametrize("bank", SESSIONS, indirect=True)
async def test_a_savepoint_that_is_rolled_back_takes_its_events_along(bank: Bank, outbox: Outbox) -> None:
    async with bank.transaction() as session:
        outbox.publish(session, Ordered(order="before"))
        kept = await begin_nested(session)
        outbox.publish(session, Ordered(order="released"))
        inner = await begin_nested(session)
        outbox.publish(session, Ordered(order="inner"))
        await end(session, inner.rollback)
        await end(session, kept.commit)
        dropped = await begin_nested(session)
        outbox.publish(session, Ordered(order="dropped"))
        released = await begin_nested(session)
        outbox.publish(session, Ordered(order="released in dropped"))
        await end(session, released.commit)
        await end(session, dropped.rollback)
        outbox.publish(session, Ordered(order="after"))

    assert await orders(bank) == ["before", "released", "after"]


@pytest.mark.parametrize("bank", SESSIONS, indirect=True)
async def test_a_session_that_goes_on_after_a_rollback_writes_what_comes_then(bank: Bank, outbox: Outbox) -> None:
    session = bank.database.opener.sessions()  # type: ignore[union-attr, misc]
    outbox.publish(session, Ordered(order="rolled back"))
    await end(session, session.rollback)
    outbox.publish(session, Ordered(order="first"))
    await end(session, session.commit)
    outbox.publish(session, Ordered(order="closed"))
    await end(session, session.close)
    outbox.publish(session, Ordered(order="second"))
    await end(session, session.commit)
    await end(session, session.close)

    assert await orders(bank) == ["first", "second"]


@pytest.mark.parametrize("bank", SESSIONS, indirect=True)
@pytest.mark.parametrize("earlier", [[], ["before the hook"], ["after the hook"]], ids=lambda earlier: "".join(earlier))
async def test_an_event_that_a_hook_publishes_at_the_commit_is_written(
    bank: Bank, outbox: Outbox, earlier: list[str]
) -> None:
    session = bank.database.opener.sessions()  # type: ignore[union-attr, misc]
    sync = getattr(session, "sync_session", session)
    sync.begin()
    for order in earlier if earlier == ["before the hook"] else []:
        outbox.publish(session, Ordered(order=order))
    event.listen(sync, "before_commit", lambda session: outbox.publish(session, Ordered(order="at the commit")))
    for order in earlier if earlier == ["after the hook"] else []:
        outbox.publish(session, Ordered(order=order))

    await end(session, session.commit)
    await end(session, session.close)

    assert await orders(bank) == [*earlier, "at the commit"]


def test_a_hook_may_publish_where_sqlalchemy_was_imported_after_the_outbox_was_made() -> None:
    done = subprocess.run([sys.executable, APPS / "imported_late.py"], capture_output=True, text=True, check=True)

    assert done.stdout == "1\n"


@pytest.mark.parametrize("bank", SESSIONS, indirect=True)
async def test_a_session_that_publishes_nothing_is_left_as_it_was(bank: Bank, outbox: Outbox) -> None:
    used, other = bank.database.opener.sessions(), bank.database.opener.sessions()  # type: ignore[union-attr, misc]
    outbox.publish(used, Ordered(order="o-1"))
    await end(used, used.commit)

    getattr(other, "sync_session", other).begin()
    await end(other, other.commit)
    left = dict(other.info)
    for session in (used, other):
        await end(session, session.close)

    assert left == {}


@pytest.mark.parametrize("bank", [each for each in SESSIONS if each.id == "psycopg-session"], indirect=True)
async def test_rows_are_written_once_what_the_session_changed_is_locked(bank: Bank, outbox: Outbox) -> None:
    await bank.ask(f"insert into {bank.accounts} values ('a', 0)")
    sessions: Any = bank.database.opener.sessions  # type: ignore[union-attr]
    with sessions() as first, sessions() as second:
        outbox.publish(second, Ordered(order="published first, committed second"))
        outbox.publish(first, Ordered(order="committed first"))
        first.execute(text(f"update {bank.accounts} set cents = 1"))
        first.commit()
        second.execute(text(f"update {bank.accounts} set cents = 2"))
        second.commit()

    assert await orders(bank) == ["committed first", "published first, committed second"]


@pytest.fixture
def sqlite_file(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(tmp_path / "shop.db", isolation_level=None)) as connection:
        yield connection


def test_a_connection_that_commits_each_statement_is_refused(sqlite_file: sqlite3.Connection, outbox: Outbox) -> None:
    with pytest.raises(OutsideTransaction, match="inside a transaction"):
        outbox.publish(sqlite_file, Ordered(order="o-1"))


def test_a_session_that_begins_nothing_by_itself_is_refused(outbox: Outbox) -> None:
    with Session(create_engine("sqlite://"), autobegin=False) as session, pytest.raises(OutsideTransaction):
        outbox.publish(session, Ordered(order="o-1"))


def test_an_engine_that_commits_each_statement_is_refused(outbox: Outbox) -> None:
    engine = create_engine("sqlite://").execution_options(isolation_level="AUTOCOMMIT")
    with engine.connect() as connection, connection.begin(), pytest.raises(OutsideTransaction):
        outbox.publish(connection, Ordered(order="o-1"))


@pytest.mark.server
async def test_a_connection_of_asyncpg_outside_a_transaction_is_refused(postgres_url: str, outbox: Outbox) -> None:
    connection = await asyncpg.connect(postgres_url)
    try:
        with pytest.raises(OutsideTransaction):
            outbox.publish(connection, Ordered(order="o-1"))
    finally:
        await connection.close()


def test_what_is_no_connection_is_named(outbox: Outbox) -> None:
    with pytest.raises(ConfigurationError, match="a str is no session and no connection"):
        outbox.publish("shop.db", Ordered(order="o-1"))  # type: ignore[call-overload]


def test_what_can_never_be_sent_is_refused_at_once(sqlite_file: sqlite3.Connection, outbox: Outbox) -> None:
    with pytest.raises(TooLarge):
        outbox.publish(sqlite_file, Ordered(order="o" * 200))
    with pytest.raises(PublishError, match="MAX_DELAY"):
        outbox.publish(sqlite_file, Ordered(order="o-1"), delay=1e9)
