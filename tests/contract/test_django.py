"""Django: the migration, events within `atomic`, and handlers that use the ORM after an outage."""

import gc
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from databases import a_django_database
from django.core.management import call_command
from django.db import connections, transaction
from running import a_worker, publish_all, running
from sqlalchemy import create_engine, text
from waiting import Facts, eventually

from holdfast import ConfigurationError, Context, Event, Retry, Settings, Worker
from holdfast.sql import Database, DatabaseUnavailable, Outbox, OutsideTransaction, columns, ddl
from holdfast.telemetry import Paused, Settled
from holdfast.testing.servers import Node


class Ordered(Event, type="ordered", key="order"):
    order: str


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def shop(stack: ExitStack, tmp_path: Path) -> str:
    """The alias of a database of SQLite with Holdfast's tables."""
    alias = a_django_database(stack, "", str(tmp_path / "shop.db"))
    call_command("migrate", "holdfast", database=alias, verbosity=0)
    return alias


def keys(alias: str) -> list[str]:
    with connections[alias].cursor() as cursor:
        cursor.execute("select key from holdfast_events order by seq")
        return [key for (key,) in cursor.fetchall()]


def test_the_migration_makes_the_tables_that_the_command_prints(shop: str, tmp_path: Path) -> None:
    query = "select type, name, sql from sqlite_master where name like '%holdfast%' order by 1, 2"
    with closing(sqlite3.connect(tmp_path / "printed.db")) as printed:
        for statement in ddl(dialect="sqlite"):
            printed.execute(statement)
        expected = printed.execute(query).fetchall()

    with connections[shop].cursor() as cursor:
        cursor.execute(query)
        assert cursor.fetchall() == expected
        cursor.execute("select name, position from holdfast_cursors order by 1")
        assert len(cursor.fetchall()) == 18


@pytest.mark.server
def test_the_migration_makes_the_tables_of_postgres_and_removes_them(
    postgres_url: str, stack: ExitStack, unique: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOLDFAST_SQL__SCHEMA", unique)
    alias = a_django_database(stack, postgres_url, "")
    engine = create_engine(postgres_url.replace("postgresql:", "postgresql+psycopg:"))
    listed = text(
        "select table_name, column_name, data_type, column_default, is_nullable from information_schema.columns "
        "where table_schema = :schema order by 1, 2"
    )

    call_command("migrate", "holdfast", database=alias, verbosity=0)
    with engine.connect() as connection:
        migrated = connection.execute(listed, {"schema": unique}).all()
    call_command("migrate", "holdfast", "zero", database=alias, verbosity=0)
    with engine.begin() as connection:
        removed = connection.execute(listed, {"schema": unique}).all()
        for statement in ddl(unique):
            connection.execute(text(statement))
        printed = connection.execute(listed, {"schema": unique}).all()
        connection.execute(text(f"drop schema {unique} cascade"))
    engine.dispose()

    assert migrated == printed and removed == []
    assert {f"{unique}.{row[0]}" for row in migrated} == set(columns(unique, dialect="postgresql"))


def test_the_migration_leaves_tables_that_are_there_as_they_are(stack: ExitStack, tmp_path: Path) -> None:
    alias = a_django_database(stack, "", str(tmp_path / "shop.db"))
    with connections[alias].cursor() as cursor:
        for statement in ddl(dialect="sqlite"):
            cursor.execute(statement)

    call_command("migrate", "holdfast", database=alias, verbosity=0)

    with connections[alias].cursor() as cursor:
        cursor.execute("select count(*) from holdfast_cursors")
        assert cursor.fetchall() == [(18,)]


def test_sqlmigrate_prints_the_statements(shop: str, capsys: pytest.CaptureFixture[str]) -> None:
    call_command("sqlmigrate", "holdfast", "0001", database=shop)

    assert capsys.readouterr().out.count("CREATE TABLE") == len(columns("holdfast", dialect="sqlite"))


def test_an_event_outside_of_atomic_is_refused(shop: str) -> None:
    with pytest.raises(OutsideTransaction):
        Outbox(using=shop).publish(Ordered(order="o-1"))

    assert keys(shop) == []


def test_an_inner_atomic_that_is_rolled_back_takes_its_events_along(shop: str) -> None:
    outbox = Outbox(using=shop)

    def fail() -> None:
        with transaction.atomic(using=shop):
            outbox.publish(Ordered(order="dropped"))
            raise ZeroDivisionError

    with transaction.atomic(using=shop):
        outbox.publish(Ordered(order="before"))
        with pytest.raises(ZeroDivisionError):
            fail()
        with transaction.atomic(using=shop):
            outbox.publish(Ordered(order="released"))
        outbox.publish(Ordered(order="after"))

    assert keys(shop) == ["before", "released", "after"]


def test_an_outbox_without_using_says_what_is_missing() -> None:
    with pytest.raises(ConfigurationError, match="for Django, Outbox takes using="):
        Outbox().publish(Ordered(order="o-1"))


def test_a_handler_of_django_takes_no_session(shop: str) -> None:
    with pytest.raises(ConfigurationError, match=r"takes the event and, if it likes, the context: \(event, ctx\)$"):

        @Worker("w").handler(Ordered, within=Database.django(shop))
        def book(event: Ordered, ctx: Context, session: Any) -> None: ...


@pytest.mark.server
async def test_a_commit_of_django_wakes_a_relay_from_a_connection_of_its_own(
    postgres_url: str, stack: ExitStack, unique: str
) -> None:
    alias = a_django_database(stack, postgres_url, "")
    engine = create_engine(postgres_url.replace("postgresql:", "postgresql+psycopg:"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in ddl(unique):
            connection.execute(text(statement))
        raw: Any = connection.connection.driver_connection
        raw.execute("listen holdfast")
        outbox = Outbox(Settings(_env_file=None, sql={"schema": unique}), using=alias)  # type: ignore[call-arg, arg-type]
        with transaction.atomic(using=alias):
            outbox.publish(Ordered(order="o-1"))

        heard = [notification.payload for notification in raw.notifies(timeout=30, stop_after=1)]
        connection.execute(text(f"drop schema {unique} cascade"))
    engine.dispose()

    assert heard == [unique]


@pytest.fixture
def closed_at_the_end() -> Iterator[None]:
    """Threads end with their connections open, and one that dies while it is opened stays open: all are closed."""
    yield
    gc.collect()
    for one in gc.get_objects():
        if isinstance(one, psycopg.Connection):
            one.close()


@pytest.mark.server
@pytest.mark.usefixtures("closed_at_the_end")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of one that dies while it is opened
async def test_connections_from_before_an_outage_are_not_used_again(
    postgres_node: Node, stack: ExitStack, unique: str
) -> None:
    alias = a_django_database(stack, postgres_node.url, "", CONN_MAX_AGE=None)
    postgres_node.ctl(*ddl(unique), f"create table {unique}.entries (order_id text)")
    settings = Settings(
        _env_file=None,  # type: ignore[call-arg]
        broker={"url": f"memory://{unique}", "exchange": unique},  # type: ignore[arg-type]
        sql={"schema": unique},  # type: ignore[arg-type]
    )
    facts = Facts()
    worker = a_worker(settings, facts)

    @worker.handler(Ordered, within=Database.django(alias), retry=Retry(attempts=1), concurrency=4)
    def book(event: Ordered) -> None:
        with connections[alias].cursor() as cursor:
            cursor.execute(f"insert into {unique}.entries values (%s)", [event.order])

    async with running(worker):
        await publish_all(settings, [Ordered(order=f"before-{n}") for n in range(20)])
        await facts.until(Settled, lambda fact: fact.outcome == "handled", count=20)
        postgres_node.stop()
        postgres_node.start()
        await publish_all(settings, [Ordered(order=f"after-{n}") for n in range(20)])
        count = f"select count(*), count(distinct order_id) from {unique}.entries"
        await eventually(lambda: postgres_node.ctl(count), "40|40\n")

    assert {fact.outcome for fact in facts.of(Settled)} <= {"handled", "duplicate", "given_back"}
    assert {fact.reason for fact in facts.of(Paused)} <= {"database"}


async def test_a_database_of_django_that_cannot_be_reached_is_unavailable(stack: ExitStack) -> None:
    alias = a_django_database(stack, "postgresql://nobody@127.0.0.1:1/shop", "")

    with pytest.raises(DatabaseUnavailable, match=r"^database shop: "):
        await Database.django(alias).check("holdfast")
