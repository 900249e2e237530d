"""What executes our statements in a transaction of the user's own, on each kind of session and connection."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from ..events import ConfigurationError
from .dialects import dialect_of
from .openers import clause, on_asyncpg, on_psycopg, on_psycopg_async, on_sqlite
from .statements import Params, Row
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
    """Executes statements on one session or connection."""

    dialect: str
    execute: Execute | None = None
    execute_async: ExecuteAsync | None = None

    def play(self, steps: Steps[Any]) -> Any:
        """Take steps. Returns their result; on an asynchronous connection an awaitable of it."""
        if self.execute_async is not None:
            return play(steps, self.execute_async)
        if self.execute is not None:
            return play_in_thread(steps, self.execute)
        raise ValueError("an executor that executes nothing")


def kinds_of(connection: Any) -> set[str]:
    """Return the names of its classes, each with the library it is of."""
    return {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(connection).__mro__}


def executor_of(connection: Any) -> Executor:
    """Return what executes statements on a session or connection. Raises `ConfigurationError` for another object."""
    kinds = kinds_of(connection)
    if kinds & {"sqlalchemy.AsyncSession", "sqlalchemy.AsyncConnection"}:
        return Executor(_dialect(connection), execute_async=_on_alchemy_async(connection))
    if kinds & {"sqlalchemy.Session", "sqlalchemy.Connection"}:
        return Executor(_dialect(connection), execute=_on_alchemy(connection))
    if kinds & {"asyncpg.Connection", "asyncpg.PoolConnectionProxy"}:
        return Executor("postgresql", execute_async=on_asyncpg(connection))
    if "psycopg.AsyncConnection" in kinds:
        return Executor("postgresql", execute_async=on_psycopg_async(connection))
    if "psycopg.Connection" in kinds:
        return Executor("postgresql", execute=on_psycopg(connection))
    if "django.BaseDatabaseWrapper" in kinds:
        from .django.opener import on_django

        return Executor(dialect_of(connection.vendor), execute=on_django(connection))
    if "sqlite3.Connection" in kinds:
        return Executor("sqlite", execute=on_sqlite(connection))
    raise ConfigurationError(f"a {type(connection).__name__} is no session and no connection that Holdfast knows")


def _dialect(connection: Any) -> str:
    bind = connection.get_bind() if hasattr(connection, "get_bind") else connection
    return str(bind.dialect.name)


def _on_alchemy(connection: Any) -> Execute:
    def execute(sql: str, params: Params) -> list[Row]:
        result = connection.execute(clause(sql), params)
        return [tuple(row) for row in result] if result.returns_rows else []

    return execute


def _on_alchemy_async(connection: Any) -> ExecuteAsync:
    async def execute(sql: str, params: Params) -> list[Row]:
        result = await connection.execute(clause(sql), params)
        return [tuple(row) for row in result] if result.returns_rows else []

    return execute
