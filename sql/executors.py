"""What executes our statements in a transaction of the user's own, on each kind of session and connection."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, TypeAlias

from ..events import ConfigurationError
from .openers import (
    in_transaction,
    on_alchemy,
    on_alchemy_async,
    on_asyncpg,
    on_psycopg,
    on_psycopg_async,
    on_sqlite,
)
from .steps import Execute, ExecuteAsync, Steps, play, play_in_thread

if TYPE_CHECKING:
    import sqlite3

    import psycopg
    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
    from sqlalchemy.orm import Session

    Direct: TypeAlias = Session | Connection | sqlite3.Connection | psycopg.Connection[Any]
    Awaited: TypeAlias = AsyncSession | AsyncConnection | psycopg.AsyncConnection[Any]


@dataclass(frozen=True, slots=True)
class Executor:
    """Executes statements on one session or connection.

    `is_within` returns whether it is in a transaction, or begins one by itself; else each statement is committed at
    once. `written` is called with the schema of an event that was written.
    """

    dialect: str
    is_within: Callable[[], bool]
    execute: Execute | None = None
    execute_async: ExecuteAsync | None = None
    written: Callable[[str], None] = lambda schema: None

    def play(self, steps: Steps[Any]) -> Any:
        """Take steps. Returns their result; on an asynchronous connection an awaitable of it."""
        if self.execute_async is not None:
            return play(steps, self.execute_async)
        if self.execute is not None:
            return play_in_thread(steps, self.execute)
        raise ValueError("an executor that executes nothing")


def kinds_of(connection: Any) -> frozenset[str]:
    """Return the names of its classes, each with the library it is of."""
    return _names(type(connection).__mro__)


@lru_cache(maxsize=100)
def _names(kinds: tuple[type, ...]) -> frozenset[str]:
    return frozenset(f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in kinds)


def executor_of(connection: Any) -> Executor:
    """Return what executes statements on a session or connection. Raises `ConfigurationError` for another object."""
    kinds = kinds_of(connection)
    for known, executor in _EXECUTORS.items():
        if known in kinds:
            return executor(connection)
    raise ConfigurationError(f"a {type(connection).__name__} is no session and no connection that Holdfast knows")


def _alchemy_async(connection: Any) -> Executor:
    dialect = _dialect(connection)
    execute = on_alchemy_async(connection, dialect)
    return Executor(dialect, partial(_is_alchemy_within, connection), execute_async=execute)


def _alchemy(connection: Any) -> Executor:
    dialect = _dialect(connection)
    return Executor(dialect, partial(_is_alchemy_within, connection), on_alchemy(connection, dialect))


def _dialect(connection: Any) -> str:
    bind = connection.get_bind() if hasattr(connection, "get_bind") else connection
    return str(bind.dialect.name)


def _is_alchemy_within(connection: Any) -> bool:
    sync = getattr(connection, "sync_connection", connection)
    return bool(sync.in_transaction() and sync.get_execution_options().get("isolation_level") != "AUTOCOMMIT")


def _asyncpg(connection: Any) -> Executor:
    return Executor("postgresql", connection.is_in_transaction, execute_async=on_asyncpg(connection))


def _psycopg_async(connection: Any) -> Executor:
    return Executor("postgresql", partial(_is_psycopg_within, connection), execute_async=on_psycopg_async(connection))


def _psycopg(connection: Any) -> Executor:
    return Executor("postgresql", partial(_is_psycopg_within, connection), on_psycopg(connection))


def _is_psycopg_within(connection: Any) -> bool:
    return not connection.autocommit or in_transaction(connection)


def _django(connection: Any) -> Executor:
    from .django.opener import on_django
    from .django.publishing import wake_after_commit

    written = partial(wake_after_commit, connection)
    return Executor(connection.vendor, lambda: connection.in_atomic_block, on_django(connection), written=written)


def _sqlite(connection: Any) -> Executor:
    begins_by_itself = connection.isolation_level is not None
    return Executor("sqlite", lambda: begins_by_itself or connection.in_transaction, on_sqlite(connection))


_EXECUTORS: dict[str, Callable[[Any], Executor]] = {
    "sqlalchemy.AsyncSession": _alchemy_async,
    "sqlalchemy.AsyncConnection": _alchemy_async,
    "sqlalchemy.Session": _alchemy,
    "sqlalchemy.Connection": _alchemy,
    "asyncpg.Connection": _asyncpg,
    "asyncpg.PoolConnectionProxy": _asyncpg,
    "psycopg.AsyncConnection": _psycopg_async,
    "psycopg.Connection": _psycopg,
    "django.BaseDatabaseWrapper": _django,
    "sqlite3.Connection": _sqlite,
}
