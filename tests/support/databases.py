"""Every kind of database, driver and session that handlers may run in, prepared for one test."""

import inspect
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import psycopg_pool
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.orm import sessionmaker

from holdfast import Context, Event, Metadata
from holdfast.sql import Database, Outbox, Statements, ddl
from holdfast.sql.openers import Alchemy, AlchemyAsync, Asyncpg, Psycopg, PsycopgAsync, Sqlite

Act = Callable[[Any, Context], Iterator[str]]
"""What a handler does: it yields the statements that it executes."""


@dataclass(frozen=True)
class Kind:
    """How to open a database, what executes a statement for its handlers, and how they commit."""

    name: str
    open: Callable[[AsyncExitStack, str, str], Awaitable[Database[Any]]]
    execute: Callable[[Any, str], Any]
    commit: Callable[[Any], Any] = lambda session: session.commit()

    @property
    def is_postgres(self) -> bool:
        return "sqlite" not in self.name


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

        return on_loop if self.database.is_async else in_thread

    def committing(self) -> Callable[..., Any]:
        """A handler that commits, as it must not."""
        commit = self.kind.commit

        async def on_loop(event: Any, ctx: Context, session: Any) -> None:
            await commit(session)

        def in_thread(event: Any, ctx: Context, session: Any) -> None:
            commit(session)

        return on_loop if self.database.is_async else in_thread

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
                case Sqlite():
                    connection = stack.enter_context(closing(sqlite3.connect(self.path)))
                    yield stack.enter_context(connection)

    async def publish(self, outbox: Outbox, within: Any, event: Event, **options: Any) -> Metadata:
        """Publish an event by a session or a connection; one that is asynchronous is awaited."""
        sent: Any = outbox.publish(within, event, **options)
        return await sent if inspect.isawaitable(sent) else sent  # type: ignore[no-any-return]

    async def ask(self, statement: str) -> list[tuple[Any, ...]]:
        """What a statement answers, in a transaction of its own."""

        def steps() -> Any:
            return (yield statement, {})

        rows: list[tuple[Any, ...]] = await self.database.run(steps())
        return rows

    async def count(self, table: str) -> int:
        return int((await self.ask(f"select count(*) from {self.statements.table(table)}"))[0][0])


@asynccontextmanager
async def a_bank(kind: Kind, url: str, schema: str, folder: Path) -> AsyncIterator[Bank]:
    async with AsyncExitStack() as stack:
        path = str(folder / f"{schema}.db")
        database = await kind.open(stack, url, path)
        bank = Bank(kind, database, schema, path)
        for statement in ddl(schema, dialect=database.dialect):
            await bank.ask(statement)
        await bank.ask(f"create table {bank.accounts} (account text not null, cents integer not null)")
        try:
            yield bank
        finally:
            if kind.is_postgres:
                await bank.ask(f"drop schema {schema} cascade")


@asynccontextmanager
async def a_lock(url: str, number: int) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """An advisory lock that is held by another session, until what this yields is called."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(f"select pg_advisory_lock({number})")

        async def release() -> None:
            await connection.execute(f"select pg_advisory_unlock({number})")

        yield release
    finally:
        await connection.close()


async def _engine(stack: AsyncExitStack, url: str) -> AsyncEngine:
    engine = create_async_engine(url)
    stack.push_async_callback(engine.dispose)
    return engine


def _driver(url: str, driver: str) -> str:
    return url.replace("postgresql:", f"postgresql+{driver}:")


def _sessions(driver: str) -> Any:
    async def opened(stack: AsyncExitStack, url: str, path: str) -> Database[Any]:
        url = f"sqlite+aiosqlite:///{path}" if driver == "aiosqlite" else _driver(url, driver)
        return Database(async_sessionmaker(await _engine(stack, url)))

    return opened


def _sync_sessions(driver: str, *, bare: bool = False) -> Any:
    async def opened(stack: AsyncExitStack, url: str, path: str) -> Database[Any]:
        engine = create_engine(f"sqlite:///{path}" if driver == "pysqlite" else _driver(url, driver))
        stack.callback(engine.dispose)
        return Database(engine) if bare else Database(sessionmaker(engine))

    return opened


async def _bare(stack: AsyncExitStack, url: str, path: str) -> Database[Any]:
    return Database(await _engine(stack, _driver(url, "asyncpg")))


async def _asyncpg(stack: AsyncExitStack, url: str, path: str) -> Database[Any]:
    return Database.asyncpg(await stack.enter_async_context(asyncpg.create_pool(url, min_size=1)))


async def _psycopg(stack: AsyncExitStack, url: str, path: str) -> Database[Any]:
    pool = psycopg_pool.AsyncConnectionPool(url, min_size=1, max_size=8, open=False)
    return Database.psycopg(await stack.enter_async_context(pool))


async def _sync_psycopg(stack: AsyncExitStack, url: str, path: str) -> Database[Any]:
    return Database.psycopg(stack.enter_context(psycopg_pool.ConnectionPool(url, min_size=1, max_size=8, open=True)))


async def _sqlite(stack: AsyncExitStack, url: str, path: str) -> Database[Any]:
    return Database.sqlite(path)


def _alchemy(session: Any, statement: str) -> Any:
    return session.execute(text(statement))


def _driver_execute(connection: Any, statement: str) -> Any:
    return connection.execute(statement)


def _commit_text(connection: Any) -> Any:
    return connection.execute("commit")


KINDS = (
    Kind("sqlite", _sqlite, _driver_execute),
    Kind("sqlite-session", _sync_sessions("pysqlite"), _alchemy),
    Kind("sqlite-async-session", _sessions("aiosqlite"), _alchemy),
    Kind("asyncpg-session", _sessions("asyncpg"), _alchemy),
    Kind("psycopg-async-session", _sessions("psycopg"), _alchemy),
    Kind("psycopg-session", _sync_sessions("psycopg"), _alchemy),
    Kind("async-engine", _bare, _alchemy),
    Kind("engine", _sync_sessions("psycopg", bare=True), _alchemy),
    Kind("asyncpg", _asyncpg, _driver_execute, _commit_text),
    Kind("psycopg-async", _psycopg, _driver_execute, _commit_text),
    Kind("psycopg", _sync_psycopg, _driver_execute, _commit_text),
)


def kinds(*, postgres: bool | None = None) -> list[Any]:
    """All kinds, or those that are a PostgreSQL or not, as parameters of a test; PostgreSQL is a server."""
    return [
        pytest.param(kind, id=kind.name, marks=pytest.mark.server if kind.is_postgres else ())
        for kind in KINDS
        if postgres in (None, kind.is_postgres)
    ]
