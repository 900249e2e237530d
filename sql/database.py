"""`Database`: the user's database, as the transactions of handlers and relays need it."""

import re
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload
from uuid import uuid4

from ..events import ConfigurationError
from ..telemetry import in_time
from .dialects import DIALECTS, dialect_of, statements_of
from .errors import DatabaseUnavailable, first_line, is_locked, trouble
from .history import History
from .kept import Kept
from .openers import Alchemy, AlchemyAsync, Asyncpg, Opener, OpenerAsync, Psycopg, PsycopgAsync, Sqlite
from .statements import VERSION, Statements
from .steps import Steps, bounded, in_thread, read_committed

if TYPE_CHECKING:
    import sqlite3

    import asyncpg
    import psycopg
    import psycopg_pool
    from sqlalchemy import Connection, Engine
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_sessionmaker
    from sqlalchemy.orm import Session, sessionmaker

S = TypeVar("S")
AS = TypeVar("AS", bound="AsyncSession")
SS = TypeVar("SS", bound="Session")
T = TypeVar("T")

_DRIVERS = {
    "postgresql": ("PostgreSQL", "postgres", ("asyncpg", "psycopg")),
    "mysql": ("MySQL", "mysql", ("asyncmy", "aiomysql")),
}
"""For each dialect its name, our extra for it, and the drivers that a URL without one may have."""

ANSWER = 60.0  # seconds until a database that does not answer counts as unavailable: its server may be gone
_PATIENCE = 5.0  # seconds for which PostgreSQL waits for a process within a transaction of ours

_UNPREPARED: dict[str, dict[str, Any]] = {
    "asyncpg": {
        "statement_cache_size": 0,
        "prepared_statement_cache_size": 0,
        "prepared_statement_name_func": lambda: f"holdfast_{uuid4().hex}",
    },
    "psycopg": {"prepare_threshold": None},
}
"""What keeps each driver from preparing statements that are used again."""


class Database(Generic[S]):
    """A database in which handlers run their transactions (`within=`), and from which a relay sends.

    A database serves one event loop. Other sources: `Database.asyncpg(pool)`, `.psycopg(pool)`, `.sqlite(path)`,
    `.django(alias)`.

    Args:
        source: SQLAlchemy's `async_sessionmaker` or `AsyncEngine` for `async def` handlers, `sessionmaker` or `Engine`
            for `def` handlers. Handlers get its sessions or connections.
        name: Its label in metrics and log; by default the name of the database.

    Raises:
        ConfigurationError: What is given is none of these.
    """

    @overload
    def __init__(self: "Database[AS]", source: "async_sessionmaker[AS]", *, name: str = ...) -> None: ...
    @overload
    def __init__(self: "Database[SS]", source: "sessionmaker[SS]", *, name: str = ...) -> None: ...
    @overload
    def __init__(self: "Database[AsyncConnection]", source: "AsyncEngine", *, name: str = ...) -> None: ...
    @overload
    def __init__(self: "Database[Connection]", source: "Engine", *, name: str = ...) -> None: ...
    def __init__(self, source: Any, *, name: str = "") -> None:
        opener, dialect, database = _alchemy(source)
        self._set(opener, dialect, name or database)

    def _set(self, opener: "Opener | OpenerAsync", dialect: str, name: str) -> None:
        if dialect_of(dialect) not in DIALECTS:
            raise ConfigurationError(f"Database: {dialect!r} is none of {', '.join(DIALECTS)}")
        self.name, self.dialect, self.opener = name, dialect_of(dialect), opener
        self.is_async = isinstance(opener, OpenerAsync)
        self.gives_session = True

    @classmethod
    def _of(cls, opener: "Opener | OpenerAsync", dialect: str, name: str) -> "Database[Any]":
        database = cls.__new__(cls)
        database._set(opener, dialect, name)
        return database

    @staticmethod
    def asyncpg(pool: "asyncpg.Pool[Any]", *, name: str = "postgresql") -> "Database[asyncpg.Connection[Any]]":
        """Return the database of an asyncpg pool; handlers get its connections.

        Args:
            pool: The pool. Its owner opens and closes it.
            name: Its label in metrics and log.
        """
        return Database._of(Asyncpg(pool), "postgresql", name)

    @overload
    @staticmethod
    def psycopg(
        pool: "psycopg_pool.AsyncConnectionPool[Any]", *, name: str = ...
    ) -> "Database[psycopg.AsyncConnection[Any]]": ...
    @overload
    @staticmethod
    def psycopg(
        pool: "psycopg_pool.ConnectionPool[Any]", *, name: str = ...
    ) -> "Database[psycopg.Connection[Any]]": ...
    @staticmethod
    def psycopg(pool: Any, *, name: str = "postgresql") -> "Database[Any]":
        """Return the database of a psycopg pool, asynchronous or not; handlers get its connections.

        Args:
            pool: The pool. Its owner opens and closes it.
            name: Its label in metrics and log.
        """
        is_async = "Async" in type(pool).__name__
        return Database._of(PsycopgAsync(pool) if is_async else Psycopg(pool), "postgresql", name)

    @staticmethod
    def sqlite(path: str, *, name: str = "") -> "Database[sqlite3.Connection]":
        """Return the database in a file of SQLite; handlers get a connection in a transaction that writes.

        Args:
            path: The file, or `:memory:`.
            name: Its label in metrics and log; by default the file's name.
        """
        return Database._of(Sqlite(str(path)), "sqlite", name or _last(path))

    @staticmethod
    def django(alias: str = "default", *, name: str = "") -> "Database[None]":
        """Return a database of Django's settings. Raises what Django raises for its settings.

        Its handlers are `def` and take `(event, ctx)`: the ORM finds the connection by itself, in a transaction.

        Args:
            alias: Its alias in the settings.
            name: Its label in metrics and log; by default the name of the database.

        Raises:
            ConfigurationError: Django is not installed.
        """
        if find_spec("django") is None:
            raise ConfigurationError('this needs Django: pip install "holdfast-rabbitmq[django]"')
        from django.db import connections

        from .django.opener import Django

        connection = connections[alias]
        database = Database._of(Django(alias), connection.vendor, name or _last(connection.settings_dict["NAME"]))
        database.gives_session = False
        return database

    @staticmethod
    def of_url(url: str, *, is_pooled: bool = False) -> "Database[Any]":
        """Return the database at a URL.

        Args:
            url: `postgresql://user@host/database`, by asyncpg or psycopg, `mysql://` or `mariadb://`, by asyncmy, or
                `sqlite:///path`.
            is_pooled: Whether a pooler may give each transaction another connection: nothing is prepared then.

        Raises:
            ConfigurationError: SQLAlchemy or a driver is not installed.
        """
        scheme, _, rest = url.partition("://")
        kind, _, driver = scheme.partition("+")
        if kind == "sqlite":
            return Database.sqlite(rest.removeprefix("/"))
        title, extra, drivers = _DRIVERS[dialect_of(kind)]
        installed = [name for name in drivers if find_spec(name) is not None]
        if not installed or find_spec("sqlalchemy") is None:
            remedy = f'pip install "holdfast-rabbitmq[{extra}]"'
            raise ConfigurationError(f"{title} needs SQLAlchemy and a driver: {remedy}")
        from sqlalchemy.ext.asyncio import create_async_engine

        driver = driver or installed[0]
        options = _UNPREPARED.get(driver, {}) if is_pooled else {}
        return Database(create_async_engine(f"{kind}+{driver}://{rest}", connect_args=options))

    async def close(self) -> None:
        """Close the connections of an engine; a pool is closed by its owner."""
        if isinstance(self.opener, AlchemyAsync):
            await self.opener.engine.dispose()

    def pool_size(self) -> int | None:
        """Return how many connections there may be at once. None where nothing bounds them, or nothing says so."""
        opener = self.opener
        if isinstance(opener, (Alchemy, AlchemyAsync)):
            pool = opener.engine.pool
            overflow: int | None = getattr(pool, "_max_overflow", None)
            return None if overflow is None or overflow < 0 else pool.size() + overflow  # type: ignore[attr-defined]
        if isinstance(opener, Asyncpg):
            return int(opener.pool.get_max_size())
        if isinstance(opener, (Psycopg, PsycopgAsync)):
            return int(opener.pool.max_size)
        return None

    def statements(self, schema: str) -> Statements:
        """Return the statements for Holdfast's tables in this database.

        Args:
            schema: The schema of the tables.
        """
        return statements_of(self.dialect, schema)

    def history(self, schema: str) -> History:
        """Return the statements that read events that are kept.

        Args:
            schema: The schema of the tables.
        """
        return History(self.dialect, schema)

    def kept(self, schema: str) -> Kept:
        """Return the statements for tables that keep their events.

        Args:
            schema: The schema of the tables.
        """
        return Kept(self.dialect, schema)

    async def run(self, steps: Steps[T], *, within: float | None = ANSWER) -> T:
        """Take steps in a transaction of their own. Raises what the driver raises.

        Args:
            steps: Statements, one after the other, and what they end in.
            within: Seconds until the database counts as unavailable; None for statements that may take any time.

        Returns:
            What the steps end in.

        Raises:
            DatabaseUnavailable: The database cannot be reached, or has not answered.
        """
        steps = read_committed(bounded(steps, self.dialect, _PATIENCE), self.dialect)
        try:
            return await in_time(self._take(steps), within)
        except Exception as error:
            if trouble(error, is_ours=True) == "unavailable" or is_locked(error):
                raise DatabaseUnavailable(f"database {self.name}: {first_line(error)}") from error
            raise

    async def _take(self, steps: Steps[T]) -> T:
        if isinstance(self.opener, OpenerAsync):
            async with self.opener.begin(steps) as opened:
                result: T = opened.first
            return result
        return await in_thread(self._run_in_thread, self.opener, steps)

    @staticmethod
    def _run_in_thread(opener: Opener, steps: Steps[T]) -> T:
        with opener.begin(steps) as opened:
            result: T = opened.first
        return result

    async def check(self, schema: str, *, keeps: bool = False) -> None:
        """Check that the schema is the one of this release.

        Args:
            schema: The schema of the tables.
            keeps: Whether its tables are to keep the events that were sent, as `HOLDFAST_SQL__KEEP` says.

        Raises:
            ConfigurationError: It is not, in one line.
            DatabaseUnavailable: The database cannot be reached.
        """
        try:
            version, has_journal = await self.run(_version(self.statements(schema)))
        except DatabaseUnavailable:
            raise
        except Exception as error:  # each driver has its own for a table that is not there
            raise ConfigurationError(
                f"database {self.name}: Holdfast's tables cannot be read ({first_line(error)}); "
                "make them by the statements of `holdfast sql schema`, or with its --apply"
            ) from error
        if version != VERSION:
            raise ConfigurationError(
                f"database {self.name}: its Holdfast schema has version {version}, this release needs {VERSION}"
            )
        if keeps and self.dialect == "mysql":
            raise ConfigurationError(f"database {self.name}: MySQL cannot keep events; leave HOLDFAST_SQL__KEEP at 0")
        if keeps and not has_journal:
            raise ConfigurationError(
                f"database {self.name}: HOLDFAST_SQL__KEEP is set, and its tables do not keep events; "
                "add the statements of `holdfast sql schema --journal`"
            )
        if has_journal and not keeps:
            raise ConfigurationError(
                f"database {self.name}: its tables keep events, which are never sent without HOLDFAST_SQL__KEEP; set it"
            )


def _version(statements: Statements) -> Steps[tuple[int | None, bool]]:
    rows = {str(name): int(position) for name, position in (yield statements.version, {})}
    return rows.get("schema"), "sequencer" in rows


def _alchemy(source: Any) -> "tuple[Opener | OpenerAsync, str, str]":
    """Return the opener of SQLAlchemy's engine or factory of sessions, its dialect, and the name of its database."""
    kind, sessions, engine = type(source), None, source
    if any(base.__name__ in ("sessionmaker", "async_sessionmaker") for base in kind.__mro__):
        sessions, engine = source, source.kw.get("bind")
    names = {base.__name__ for base in type(engine).__mro__}
    if not names & {"AsyncEngine", "Engine"}:
        given = "a sessionmaker without bind=" if sessions is not None else f"a {kind.__name__}"
        raise ConfigurationError(f"Database: {given} is no engine and no factory of sessions of SQLAlchemy")
    opener = AlchemyAsync(engine, sessions) if "AsyncEngine" in names else Alchemy(engine, sessions)
    return opener, engine.dialect.name, _last(engine.url.database or "memory")


def _last(path: Any) -> str:
    """The name of a database, which may be a file."""
    return re.split(r"[\\/]", str(path))[-1].strip(":")
