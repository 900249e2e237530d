"""What an error of a database driver means for the transaction it ended."""

import sqlite3
from collections.abc import Iterator
from typing import Literal, NoReturn, TypeAlias

from ..events import HoldfastError

Trouble: TypeAlias = Literal["again", "conflict", "unavailable"]

MAKE_TABLES = "Holdfast's tables are not in this database: make them with `holdfast sql schema --apply`"

_AGAIN = {"40001", "40P01", "55P03"}  # serialisation failure, deadlock, lock not available
_UNAVAILABLE = ("08", "57P", "53300")  # connection exceptions, the server stops or starts, too many connections
_SILENT = "25P03"  # the process was silent within a transaction for longer than the server allows
_POOLED = {"42P05", "26000"}  # a prepared statement is another connection's
# Numbers of MySQL and MariaDB for the same.
_MYSQL = {"MySQLdb", "aiomysql", "asyncmy", "pymysql"}
_MYSQL_AGAIN = {1020, 1205, 1213, 3572}
_MYSQL_UNAVAILABLE = {0, 1040, 1053, 1203, 1927, 2002, 2003, 2006, 2013, 2055, 4031}
_MYSQL_NO_TABLE = 1146
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


class DatabaseUnavailable(HoldfastError):
    """The database cannot be reached. Whether it committed what was under way is unknown."""


class TransactionEnded(HoldfastError):
    """The transaction of a handler or a projection was over before they were: they committed it or rolled it back, or
    caught an error by which the database had ended it."""


class Conflict(HoldfastError):
    """Another transaction has appended to the aggregate since it was loaded: load it again, and decide again."""


class OutsideTransaction(HoldfastError):
    """An event was to be published on a connection with no transaction, where nothing would commit with it."""


def first_line(error: BaseException) -> str:
    """Return the first line of an error: the following ones hold the statement and its values."""
    text = (str(error) or type(error).__name__).splitlines()[0][:300]
    if any(_state(cause) in _POOLED for cause in _causes(error)):
        text += " (a pooler shares connections between transactions: keep the driver from preparing statements)"
    return text


def is_locked(error: BaseException) -> bool:
    """Return whether SQLite found the database locked by another connection."""
    return any(_is_busy(cause) for cause in _causes(error))


def is_aborted(error: BaseException) -> bool:
    """Return whether PostgreSQL had ended the transaction already, because of an earlier error."""
    return any(_state(cause) == "25P02" for cause in _causes(error))


def trouble(error: BaseException, *, is_ours: bool = False) -> Trouble | None:
    """Return what a database's error asks for: to run the transaction again, to decide again, or to wait for the
    database.

    None for every other error. With `is_ours` it was raised by a statement of Holdfast's own, where a lost connection
    may also be an `OSError`; in a handler that could be any connection.
    """
    for cause in reversed(list(_causes(error))):  # what the driver said comes before what was made of it
        state, number = _state(cause), _number(cause)
        if state in _AGAIN or number in _MYSQL_AGAIN or _is_busy(cause):
            return "again"
        if is_conflict(cause):
            return "conflict"
        if state.startswith(_UNAVAILABLE) or number in _MYSQL_UNAVAILABLE or _is_lost(cause, state):
            return "unavailable"
        if is_ours and (state == _SILENT or isinstance(cause, OSError)):
            return "unavailable"
    return None


def is_conflict(error: BaseException) -> bool:
    """Return whether a version of an aggregate is there already."""
    if isinstance(error, sqlite3.IntegrityError):
        return "events.stream_version" in str(error)
    return isinstance(error, Conflict) or (_state(error) == "23505" and "events_stream" in str(error))


def lacks_table(error: BaseException) -> bool:
    """Return whether a statement named a table that is not there."""
    return any(
        _state(cause) == "42P01"
        or _number(cause) == _MYSQL_NO_TABLE
        or (isinstance(cause, sqlite3.OperationalError) and str(cause).startswith("no such table"))
        for cause in _causes(error)
    )


def raise_explained(error: Exception) -> NoReturn:
    """Raise what the error of a statement that writes an event stands for: a `Conflict`, or the error itself. Where the
    table is missing, a note says how to make it."""
    if any(is_conflict(cause) for cause in _causes(error)):
        raise Conflict("another transaction has appended to the aggregate since it was loaded") from error
    if lacks_table(error):
        error.add_note(MAKE_TABLES)
    raise error


def _state(error: BaseException) -> str:
    """The SQLSTATE of an error, as asyncpg and psycopg have it, or psycopg2."""
    return str(getattr(error, "sqlstate", None) or getattr(error, "pgcode", None) or "")


def _number(error: BaseException) -> int | None:
    """The number of an error of MySQL or its client; 0 is that of a connection that is closed."""
    is_mysql = type(error).__module__.partition(".")[0] in _MYSQL and bool(error.args)
    return error.args[0] if is_mysql and isinstance(error.args[0], int) else None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, and what it stands for: SQLAlchemy keeps the driver's as `orig`, which keeps its own as a cause."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = getattr(cause, "orig", None) or cause.__cause__


def _is_lost(error: BaseException, state: str) -> bool:
    """Whether the connection is lost, by the errors that carry no state."""
    library, kind = type(error).__module__.partition(".")[0], type(error).__name__
    if library == "sqlalchemy":
        return bool(getattr(error, "connection_invalidated", False))
    if library not in ("asyncpg", "psycopg", "psycopg2", "psycopg_pool") or state:
        return False
    return kind in ("OperationalError", "PoolTimeout") or (kind == "InterfaceError" and "clos" in str(error))


def _is_busy(error: BaseException) -> bool:
    return isinstance(error, sqlite3.OperationalError) and getattr(error, "sqlite_errorcode", 0) & 0xFF in _BUSY
