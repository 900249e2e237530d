"""The user's databases: how a transaction is opened on each kind of engine, pool or file there is.

Each opener has `begin`, a context manager of one transaction, with the steps that are taken first and last in it: it
commits at its end, or rolls back on an error.
"""

import sqlite3
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    closing,
    contextmanager,
)
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from .dialects import dialect_of
from .statements import Params, Row, in_percent, numbered
from .steps import Execute, ExecuteAsync, Steps, nothing, play, play_in_thread

if TYPE_CHECKING:
    from asyncpg import Pool
    from psycopg_pool import AsyncConnectionPool, ConnectionPool
    from sqlalchemy import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine

    from .django.opener import Django

_BUSY_TIMEOUT = 5.0  # seconds that SQLite waits for another writer
_READ_COMMITTED = "set transaction isolation level read committed"  # MySQL's default locks the gaps between rows

_TAKE_NAMES = ("pymysql", "asyncmy", "aiomysql")  # drivers that take `%(name)s`, though SQLAlchemy's own is `%s`


@dataclass(slots=True)
class Opened:
    """A transaction in a thread: `user` is what the handler gets, `first` what its first steps ended in. It ends with
    what a session has kept back (`flush`), the steps that were put into `last`, and the commit."""

    user: Any
    execute: Execute
    is_open: Callable[[], bool]
    flush: Callable[[], None] = lambda: None
    first: Any = None
    last: Steps[Any] = field(default_factory=nothing)


async def _nothing() -> None:
    pass


@dataclass(slots=True)
class OpenedAsync:
    """A transaction on the loop. See `Opened`."""

    user: Any
    execute: ExecuteAsync
    is_open: Callable[[], bool]
    flush: Callable[[], Awaitable[None]] = _nothing
    first: Any = None
    last: Steps[Any] = field(default_factory=nothing)


class BaseOpener:
    """What begins and ends a transaction in a thread."""

    __slots__ = ()

    @contextmanager
    def begin(self, first: Steps[Any] | None = None) -> Iterator[Opened]:
        """Open a transaction and take its `first` steps."""
        with self._transaction() as opened:
            opened.first = play_in_thread(first or nothing(), opened.execute)
            yield opened
            opened.flush()
            play_in_thread(opened.last, opened.execute)

    def _transaction(self) -> AbstractContextManager[Opened]:
        raise NotImplementedError


class BaseOpenerAsync:
    """What begins and ends a transaction on the loop."""

    __slots__ = ()

    @asynccontextmanager
    async def begin(self, first: Steps[Any] | None = None) -> AsyncIterator[OpenedAsync]:
        """Open a transaction and take its `first` steps."""
        async with self._transaction() as opened:
            opened.first = await play(first or nothing(), opened.execute)
            yield opened
            await play(opened.last, opened.execute)

    def _transaction(self) -> AbstractAsyncContextManager[OpenedAsync]:
        raise NotImplementedError


def _rows(result: Any, dialect: str) -> list[Row]:
    """The rows of a result. MySQL has no RETURNING for all statements: there a change answers one for each it made."""
    if result.returns_rows:
        return [tuple(row) for row in result]
    return [(True,)] * result.rowcount if dialect_of(dialect) == "mysql" else []


@dataclass(frozen=True, slots=True)
class Alchemy(BaseOpener):
    """SQLAlchemy's `Engine`, with the sessions of a factory or bare connections."""

    engine: "Engine"
    sessions: Callable[..., Any] | None = None

    @contextmanager
    def _transaction(self) -> Iterator[Opened]:
        """Open a transaction. A session is within it: what commits the session by itself has not committed yet."""
        with self.engine.connect() as connection, connection.begin() as outer:
            execute = on_alchemy(connection, connection.dialect.name)
            if dialect_of(connection.dialect.name) == "mysql":
                execute(_READ_COMMITTED, {})
            if self.sessions is None:
                yield Opened(connection, execute, lambda: outer.is_active)
                return
            with closing(self.sessions(bind=connection)) as session:
                inner = session.begin()
                yield Opened(session, execute, lambda: outer.is_active and inner.is_active, session.flush)
                session.commit()


@dataclass(frozen=True, slots=True)
class AlchemyAsync:
    """SQLAlchemy's `AsyncEngine`, with the sessions of a factory or bare connections.

    What SQLAlchemy awaits runs in a greenlet. A transaction begins in one greenlet and ends in one: with a greenlet for
    each call it took a quarter more processor time.
    """

    engine: "AsyncEngine"
    sessions: Callable[..., Any] | None = None

    @asynccontextmanager
    async def begin(self, first: Steps[Any] | None = None) -> AsyncIterator[OpenedAsync]:
        """Open a transaction and take its `first` steps."""
        from sqlalchemy.ext.asyncio import AsyncConnection
        from sqlalchemy.util import greenlet_spawn

        sessions: Any = self.sessions
        user: Any = None

        def session(bind: Any) -> Any:
            nonlocal user
            user = sessions(bind=AsyncConnection(self.engine, bind))
            return _Awaited(user) if _has_its_own(type(user)) else user.sync_session

        opening = Alchemy(self.engine.sync_engine, None if sessions is None else session).begin(first)
        opened = await greenlet_spawn(opening.__enter__)
        if sessions is None:
            user = AsyncConnection(self.engine, opened.user)
        execute, flush = partial(greenlet_spawn, opened.execute), partial(greenlet_spawn, opened.flush)
        theirs = OpenedAsync(user, execute, opened.is_open, flush, opened.first)
        try:
            yield theirs
        except BaseException as error:
            if not await greenlet_spawn(opening.__exit__, type(error), error, error.__traceback__):
                raise
        else:
            opened.last = theirs.last
            await greenlet_spawn(opening.__exit__, None, None, None)


def _has_its_own(kind: type) -> bool:
    """Whether a class of asynchronous sessions begins or ends them in a way of its own."""
    from sqlalchemy.ext.asyncio import AsyncSession

    return any(getattr(kind, name) is not getattr(AsyncSession, name) for name in ("begin", "flush", "commit", "close"))


class _Awaited:
    """An asynchronous session as one of a greenlet: its own methods are called, and awaited there."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def __getattr__(self, name: str) -> Any:
        from sqlalchemy.util import await_only

        return lambda: await_only(getattr(self._session, name)())


@dataclass(frozen=True, slots=True)
class Asyncpg(BaseOpenerAsync):
    """A pool of asyncpg."""

    pool: "Pool[Any]"

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[OpenedAsync]:
        async with self.pool.acquire() as connection, connection.transaction():
            yield OpenedAsync(connection, on_asyncpg(connection), connection.is_in_transaction)


@dataclass(frozen=True, slots=True)
class PsycopgAsync(BaseOpenerAsync):
    """An asynchronous pool of psycopg."""

    pool: "AsyncConnectionPool[Any]"

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[OpenedAsync]:
        async with self.pool.connection() as connection, connection.transaction():
            yield OpenedAsync(connection, on_psycopg_async(connection), lambda: in_transaction(connection))


@dataclass(frozen=True, slots=True)
class Psycopg(BaseOpener):
    """A pool of psycopg."""

    pool: "ConnectionPool[Any]"

    @contextmanager
    def _transaction(self) -> Iterator[Opened]:
        with self.pool.connection() as connection, connection.transaction():
            yield Opened(connection, on_psycopg(connection), lambda: in_transaction(connection))


class Sqlite(BaseOpener):
    """A file of SQLite, or `:memory:`. A transaction takes the right to write when it begins: one that reads first
    fails at once where another has written since."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._memory = self._connect() if path == ":memory:" else None
        self._one_at_a_time = threading.Lock()

    @contextmanager
    def _transaction(self) -> Iterator[Opened]:
        if self._memory is not None:
            with self._one_at_a_time, self._on(self._memory) as opened:
                yield opened
            return
        with closing(self._connect()) as connection, self._on(connection) as opened:
            yield opened

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=_BUSY_TIMEOUT, isolation_level=None, check_same_thread=False)

    @contextmanager
    def _on(self, connection: sqlite3.Connection) -> Iterator[Opened]:
        connection.execute("begin immediate")
        try:
            yield Opened(connection, on_sqlite(connection), lambda: connection.in_transaction)
            connection.execute("commit")
        finally:
            if connection.in_transaction:
                connection.execute("rollback")


Opener: TypeAlias = "Alchemy | Psycopg | Sqlite | Django"
OpenerAsync: TypeAlias = AlchemyAsync | Asyncpg | PsycopgAsync


def on_alchemy_async(connection: Any, dialect: str) -> ExecuteAsync:
    """Return what executes a statement on an asynchronous session or connection of SQLAlchemy."""
    from sqlalchemy.util import greenlet_spawn

    session = getattr(connection, "sync_session", None)
    return partial(greenlet_spawn, on_alchemy(session or connection.sync_connection, dialect))


def on_alchemy(connection: Any, dialect: str) -> Execute:
    """Return what executes a statement on a session or connection of SQLAlchemy.

    The driver gets the statement as it is: SQLAlchemy would look through a `text` and its parameters each time.
    """
    from sqlalchemy import text

    def execute(sql: str, params: Params) -> list[Row]:
        bound = connection.connection() if hasattr(connection, "get_bind") else connection
        kind = bound.dialect
        if kind.paramstyle == "numeric_dollar":
            numbers, names = numbered(sql)
            result = bound.exec_driver_sql(numbers, tuple([params[name] for name in names]))
        elif kind.paramstyle == "pyformat" or kind.driver in _TAKE_NAMES:
            result = bound.exec_driver_sql(in_percent(sql), dict(params))
        else:
            result = bound.execute(text(sql), params)
        return _rows(result, dialect)

    return execute


def on_asyncpg(connection: Any) -> ExecuteAsync:
    """Return what executes a statement on a connection of asyncpg."""

    async def execute(sql: str, params: Params) -> list[Row]:
        text, names = numbered(sql)
        return [tuple(row) for row in await connection.fetch(text, *(params[name] for name in names))]

    return execute


def on_psycopg_async(connection: Any) -> ExecuteAsync:
    """Return what executes a statement on an asynchronous connection of psycopg."""
    from psycopg.rows import tuple_row

    async def execute(sql: str, params: Params) -> list[Row]:
        async with connection.cursor(row_factory=tuple_row) as cursor:
            await cursor.execute(in_percent(sql), params)
            return await cursor.fetchall() if cursor.description else []

    return execute


def on_psycopg(connection: Any) -> Execute:
    """Return what executes a statement on a connection of psycopg."""
    from psycopg.rows import tuple_row

    def execute(sql: str, params: Params) -> list[Row]:
        with connection.cursor(row_factory=tuple_row) as cursor:
            cursor.execute(in_percent(sql), params)
            return cursor.fetchall() if cursor.description else []

    return execute


def on_sqlite(connection: sqlite3.Connection) -> Execute:
    """Return what executes a statement on a connection of SQLite."""
    return lambda sql, params: [tuple(row) for row in connection.execute(sql, params).fetchall()]


def in_transaction(connection: Any) -> bool:
    """Whether a connection of psycopg is in a transaction that can still commit."""
    from psycopg.pq import TransactionStatus

    return bool(connection.info.transaction_status == TransactionStatus.INTRANS)
