"""Every kind of database, driver and session that handlers may run in, prepared for one test.

`make test-databases` sets `HOLDFAST_TEST_DATABASES`: MariaDB, and PostgreSQL behind PgBouncer, are among them then, and
suites of what is built on openers run on all of them.
"""

import inspect
import os
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import django
import psycopg_pool
import pytest
from django.conf import settings as django_settings
from django.db import connections, transaction
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.orm import sessionmaker

from holdfast import Context, Event, Metadata
from holdfast.sql import Database, Outbox, Statements, columns, ddl
from holdfast.sql.django.opener import Django
from holdfast.sql.openers import Alchemy, AlchemyAsync, Asyncpg, Psycopg, PsycopgAsync, Sqlite

_SOME_SCHEMA = "t0123456789"  # as long as the names of tests
Act = Callable[[Any, Context], Iterator[str]]
"""What a handler does: it yields the statements that it executes."""


@dataclass(frozen=True)
class Kind:
    """How to open a database, what executes a statement for its handlers, and how they commit."""

    name: str
    open: Callable[[AsyncExitStack, str, str], Awaitable[Database[Any]]]
    execute: Callable[[Any, str], Any]
    commit: Callable[[Any], Any] = lambda session: session.commit()
    server: str = "postgres"

    @property
    def is_postgres(self) -> bool:
        return self.server in ("postgres", "pgbouncer")


@dataclass(frozen=True)
class Bank:
    """A database with Holdfast's tables and one of accounts."""

    kind: Kind
    database: Database[Any]
    schema: str
    path: str = ""

    @property
    def statements(self) -> Statements:
        return self.database.statements(self.schema)

    @property
    def accounts(self) -> str:
        return self.statements.table("accounts")

    def handler(self, act: Act) -> Callable[..., Any]:
        """A handler as this kind of database needs it: on the loop, or in a thread."""
        execute = self.kind.execute

        async def on_loop(event: Any, ctx: Context, session: Any) -> None:
            for statement in act(event, ctx):
                await execute(session, statement)

        def in_thread(event: Any, ctx: Context, session: Any) -> None:
            for statement in act(event, ctx):
                execute(session, statement)

        return on_loop if self.database.is_async else self.finding_session(in_thread)

    def finding_session(self, handler: Callable[..., Any]) -> Callable[..., Any]:
        """The handler as one that finds its connection by itself, as Django's ORM does."""
        match self.database.opener:
            case Django(alias=alias):
                return lambda event, ctx: handler(event, ctx, connections[alias])
            case _:
                return handler

    def catching(self, *statements: str) -> Callable[..., Any]:
        """A handler that catches what its statements raise."""
        execute = self.kind.execute

        async def on_loop(event: Any, ctx: Context, session: Any) -> None:
            for statement in statements:
                with suppress(Exception):
                    await execute(session, statement)

        def in_thread(event: Any, ctx: Context, session: Any) -> None:
            for statement in statements:
                with suppress(Exception):
                    execute(session, statement)

        return on_loop if self.database.is_async else self.finding_session(in_thread)

    def committing(self) -> Callable[..., Any]:
        """A handler that commits, as it must not."""
        commit = self.kind.commit

        async def on_loop(event: Any, ctx: Context, session: Any) -> None:
            await commit(session)

        def in_thread(event: Any, ctx: Context, session: Any) -> None:
            commit(session)

        return on_loop if self.database.is_async else self.finding_session(in_thread)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        """A session or a connection in a transaction, as an application opens it."""
        opener, sessions = self.database.opener, getattr(self.database.opener, "sessions", None)
        async with AsyncExitStack() as stack:
            match opener:
                case AlchemyAsync():
                    yield await stack.enter_async_context((sessions or opener.engine).begin())
                case Alchemy():
                    yield stack.enter_context((sessions or opener.engine).begin())
                case Asyncpg():
                    connection = await stack.enter_async_context(opener.pool.acquire())
                    await stack.enter_async_context(connection.transaction())
                    yield connection
                case PsycopgAsync():
                    yield await stack.enter_async_context(opener.pool.connection())
                case Psycopg():
                    yield stack.enter_context(opener.pool.connection())
                case Django(alias=alias):
                    stack.callback(connections[alias].close)
                    stack.enter_context(transaction.atomic(using=alias))
                    yield connections[alias]
                case Sqlite():
                    connection = stack.enter_context(closing(sqlite3.connect(self.path)))
                    yield stack.enter_context(connection)

    async def publish(self, outbox: Outbox, within: Any, event: Event, **options: Any) -> Metadata:
        """Publish an event by a session or a connection; one that is asynchronous is awaited."""
        if isinstance(self.database.opener, Django):
            using = Outbox(outbox._settings, source=outbox._source, using=self.database.opener.alias)
            return using.publish(event, **options)
        sent: Any = outbox.publish(within, event, **options)
        return await sent if inspect.isawaitable(sent) else sent  # type: ignore[no-any-return]

    async def ask(self, *statements: str) -> list[tuple[Any, ...]]:
        """What the last of these statements answers, in a transaction of their own."""

        def steps() -> Any:
            for statement in statements:
                rows = yield statement, {}
            return rows

        rows: list[tuple[Any, ...]] = await self.database.run(steps())
        return rows

    async def count(self, table: str) -> int:
        return int((await self.ask(f"select count(*) from {self.statements.table(table)}"))[0][0])


@asynccontextmanager
async def a_bank(kind: Kind, url: str, schema: str, folder: Path, *, keeps: bool = False) -> AsyncIterator[Bank]:
    async with AsyncExitStack() as stack:
        path = str(folder / f"{schema}.db")
        database = await kind.open(stack, url, path)
        bank = Bank(kind, database, schema, path)
        accounts = f"create table {bank.accounts} (account text not null, cents integer not null)"
        await bank.ask(*_tables(schema, database.dialect, keeps), accounts)
        try:
            yield bank
        finally:
            if kind.is_postgres:
                await bank.ask(f"drop schema {schema} cascade")
            elif kind.server:
                tables = (*columns(schema, dialect=database.dialect, keeps=keeps), bank.accounts)
                await bank.ask(*(f"drop table if exists {table}" for table in tables))


def _tables(schema: str, dialect: str, keeps: bool) -> list[str]:
    """The statements of `ddl`, which takes a while to write them: they are written once."""
    return [statement.replace(_SOME_SCHEMA, schema) for statement in _tables_of_some(dialect, keeps)]


@cache
def _tables_of_some(dialect: str, keeps: bool) -> list[str]:
    return ddl(_SOME_SCHEMA, dialect=dialect, keeps=keeps)


@asynccontextmanager
async def a_lock(bank: Bank, url: str) -> AsyncIterator[tuple[str, Callable[[], Awaitable[None]]]]:
    """A lock that another session holds: the statement that waits for it, and what releases it."""
    words = ("pg_advisory_lock(4711)", "pg_advisory_xact_lock(4711)", "pg_advisory_unlock(4711)")
    if not bank.kind.is_postgres:
        words = ("get_lock('4711', 0)", "get_lock('4711', 60)", "release_lock('4711')")
    take, wait, release = (text(f"select {word}") for word in words)
    async with AsyncExitStack() as stack:
        engine = await _engine(stack, _driver(url, "asyncpg" if bank.kind.is_postgres else "asyncmy"))
        connection = await stack.enter_async_context(engine.connect())
        await connection.execute(take)

        async def free() -> None:
            await connection.execute(release)

        yield wait.text, free


async def _engine(stack: AsyncExitStack, url: str, **options: Any) -> AsyncEngine:
    engine = create_async_engine(url, **options)
    stack.push_async_callback(engine.dispose)
    return engine


def _driver(url: str, driver: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}+{driver}://{rest}"


def _sessions(driver: str, **options: Any) -> Any:
    async def opened(stack: AsyncExitStack, url: str, path: str) -> Database[Any]:
        url = f"sqlite+aiosqlite:///{path}" if driver == "aiosqlite" else _driver(url, driver)
        return Database(async_sessionmaker(await _engine(stack, url, **options)))

    return opened


def _sync_sessions(driver: str, *, bare: bool = False, **options: Any) -> Any:
    async def opened(stack: AsyncExitStack, url: str, path: str) -> Database[Any]:
        url = f"sqlite:///{path}" if driver == "pysqlite" else _driver(url, driver)
        engine = create_engine(url, **options)
        stack.callback(engine.dispose)
        return Database(engine) if bare else Database(sessionmaker(engine))

    return opened


def _bare(driver: str) -> Any:
    async def opened(stack: AsyncExitStack, url: str, path: str) -> Database[Any]:
        return Database(await _engine(stack, _driver(url, driver)))

    return opened


def _asyncpg(**options: Any) -> Any:
    async def opened(stack: AsyncExitStack, url: str, path: str) -> Database[Any]:
        return Database.asyncpg(await stack.enter_async_context(asyncpg.create_pool(url, min_size=1, **options)))

    return opened


def _psycopg(**options: Any) -> Any:
    async def opened(stack: AsyncExitStack, url: str, path: str) -> Database[Any]:
        pool = psycopg_pool.AsyncConnectionPool(url, min_size=1, max_size=8, open=False, kwargs=options)
        return Database.psycopg(await stack.enter_async_context(pool))

    return opened


async def _sync_psycopg(stack: AsyncExitStack, url: str, path: str) -> Database[Any]:
    return Database.psycopg(stack.enter_context(psycopg_pool.ConnectionPool(url, min_size=1, max_size=8, open=True)))


async def _sqlite(stack: AsyncExitStack, url: str, path: str) -> Database[Any]:
    return Database.sqlite(path)


def set_up_django() -> None:
    """Set Django up, with no database but those that tests add."""
    if not django_settings.configured:
        os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"  # tests await things, and use the ORM next to them
        memory = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
        django_settings.configure(DATABASES={"default": memory}, INSTALLED_APPS=["holdfast.sql.django"], USE_TZ=True)
        django.setup()


def a_django_database(stack: AsyncExitStack, url: str, path: str, **options: Any) -> str:
    """The alias of a database that Django knows until the end of the test."""
    set_up_django()
    alias, server = f"test_{len(connections.settings)}", urlsplit(url)
    database: dict[str, Any] = {"ENGINE": "django.db.backends.sqlite3", "NAME": path}
    if url:
        database = {"ENGINE": "django.db.backends.postgresql", "NAME": server.path.strip("/"), "USER": server.username}
        database |= {"HOST": server.hostname, "PORT": server.port}
    connections.settings[alias] = connections.configure_settings({"default": {}, alias: database | options})[alias]
    stack.callback(lambda: connections[alias].close())
    return alias


async def _django(stack: AsyncExitStack, url: str, path: str) -> Database[Any]:
    return Database.django(a_django_database(stack, url, path))


async def _django_file(stack: AsyncExitStack, url: str, path: str) -> Database[Any]:
    return Database.django(a_django_database(stack, "", path))


def _cursor(connection: Any, statement: str) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(statement)


def _alchemy(session: Any, statement: str) -> Any:
    return session.execute(text(statement))


def _driver_execute(connection: Any, statement: str) -> Any:
    return connection.execute(statement)


def _commit_text(connection: Any) -> Any:
    return connection.execute("commit")


KINDS = (
    Kind("sqlite", _sqlite, _driver_execute, server=""),
    Kind("sqlite-session", _sync_sessions("pysqlite"), _alchemy, server=""),
    Kind("sqlite-async-session", _sessions("aiosqlite"), _alchemy, server=""),
    Kind("sqlite-django", _django_file, _cursor, lambda connection: connection.set_rollback(True), server=""),
    Kind("asyncpg-session", _sessions("asyncpg"), _alchemy),
    Kind("psycopg-async-session", _sessions("psycopg"), _alchemy),
    Kind("psycopg-session", _sync_sessions("psycopg"), _alchemy),
    Kind("async-engine", _bare("asyncpg"), _alchemy),
    Kind("engine", _sync_sessions("psycopg", bare=True), _alchemy),
    Kind("asyncpg", _asyncpg(), _driver_execute, _commit_text),
    Kind("psycopg-async", _psycopg(), _driver_execute, _commit_text),
    Kind("psycopg", _sync_psycopg, _driver_execute, _commit_text),
    Kind("django", _django, _cursor, lambda connection: connection.set_rollback(True)),
)
UNPREPARED = {
    "statement_cache_size": 0,
    "prepared_statement_cache_size": 0,
    "prepared_statement_name_func": lambda: f"test_{uuid4().hex}",
}
MORE_KINDS = (
    Kind("mariadb-asyncmy-session", _sessions("asyncmy"), _alchemy, server="mariadb"),
    Kind("mariadb-pymysql-session", _sync_sessions("pymysql"), _alchemy, server="mariadb"),
    Kind("mariadb-async-engine", _bare("asyncmy"), _alchemy, server="mariadb"),
    Kind("mariadb-engine", _sync_sessions("pymysql", bare=True), _alchemy, server="mariadb"),
    Kind("pgbouncer-asyncpg-session", _sessions("asyncpg", connect_args=UNPREPARED), _alchemy, server="pgbouncer"),
    Kind("pgbouncer-asyncpg", _asyncpg(statement_cache_size=0), _driver_execute, _commit_text, server="pgbouncer"),
    Kind(
        "pgbouncer-psycopg-async", _psycopg(prepare_threshold=None), _driver_execute, _commit_text, server="pgbouncer"
    ),
)


EACH_OPENER = frozenset(
    {"sqlite", "asyncpg-session", "psycopg-session", "asyncpg", "psycopg-async", "psycopg", "django"}
)
"""One kind of each opener of `holdfast.sql`; tests/contract/test_openers.py holds it."""

_ALL = "HOLDFAST_TEST_DATABASES" in os.environ


def kinds(*, server: bool | None = None) -> list[Any]:
    """Every kind, or those that are a server or not, as parameters of a test: for suites of what an opener does."""
    return [
        pytest.param(kind, id=kind.name, marks=pytest.mark.server if kind.server else ())
        for kind in (KINDS + MORE_KINDS if _ALL else KINDS)
        if server in (None, bool(kind.server))
    ]


def openers(*, server: bool | None = None) -> list[Any]:
    """One kind of each opener, for suites of what is built on them. `make test-databases` runs them on every kind."""
    return [parameter for parameter in kinds(server=server) if _ALL or parameter.id in EACH_OPENER]


def keeping(*, server: bool | None = None) -> list[Any]:
    """Those of `openers` that can keep their events."""
    return [parameter for parameter in openers(server=server) if "mariadb" not in str(parameter.id)]


def banks(kinds: list[Any], *, keeps: bool = False) -> Any:
    """The fixture `bank` of a suite: a database of each of these kinds, with a schema of the test's own."""

    @pytest.fixture(params=kinds)
    async def bank(request: pytest.FixtureRequest, unique: str, tmp_path: Path) -> AsyncIterator[Bank]:
        kind: Kind = request.param
        url = request.getfixturevalue(f"{kind.server}_url") if kind.server else ""
        async with a_bank(kind, url, unique, tmp_path, keeps=keeps) as bank:
            yield bank

    return bank
