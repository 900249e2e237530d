"""Holdfast's own tables: as SQLAlchemy's `MetaData` for Alembic, as DDL to print, and the check of what is there."""

from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    create_mock_engine,
    text,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP
from sqlalchemy.types import TypeEngine

from ..events import ConfigurationError
from .dialects import dialect_of, statements_of
from .statements import SHARDS, VERSION

_STORAGE = (  # many rows come and go: vacuum by their number, not by a share of the table
    "autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, "
    "autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 20000"
)

_MYSQL = {"engine": "InnoDB", "charset": "utf8mb4", "collate": "utf8mb4_bin"}  # else a key is as good as its capitals


def tables(schema: str = "holdfast", *, dialect: str = "postgresql", keeps: bool = False) -> MetaData:
    """Return the tables, for Alembic's `target_metadata`. Only PostgreSQL's schemas are in one database: elsewhere the
    name begins the tables'.

    With `keeps` they keep the events that were sent (`HOLDFAST_SQL__KEEP`). Raises `ConfigurationError` for MySQL,
    where they cannot.
    """
    is_postgres, is_mysql = dialect == "postgresql", dialect_of(dialect) == "mysql"
    if keeps and is_mysql:
        raise ConfigurationError("MySQL and MariaDB: events cannot be kept there; leave HOLDFAST_SQL__KEEP at 0")
    metadata = MetaData(schema=schema if is_postgres else None)
    prefix = "" if is_postgres else f"{schema}_"
    moment: TypeEngine[Any] = TIMESTAMP(timezone=True) if is_postgres else Float(53 if is_mysql else None)
    extra: TypeEngine[Any] = JSONB() if is_postgres else JSON()
    serial = Integer() if dialect == "sqlite" else BigInteger()
    now = text(statements_of(dialect, schema).now)
    label: TypeEngine[Any] = String(255) if is_mysql else Text()  # of an index, where MySQL has to know the length
    digest: TypeEngine[Any] = mysql.VARBINARY(16) if is_mysql else LargeBinary()
    body: TypeEngine[Any] = mysql.LONGBLOB() if is_mysql else LargeBinary()
    tell_apart: dict[str, Any] = {
        f"{kind}_{option}": value for kind in ("mysql", "mariadb") for option, value in _MYSQL.items()
    }

    def table(name: str, *columns: Any, **options: Any) -> None:
        Table(f"{prefix}{name}", metadata, *columns, **(options | tell_apart))

    table(
        "events",
        Column("seq", serial, primary_key=True, autoincrement=True),
        Column("shard", SmallInteger, nullable=False),
        Column("event_id", Text, nullable=False),
        Column("event_type", Text, nullable=False),
        Column("version", Integer, nullable=False),
        Column("key", Text),
        Column("source", Text, nullable=False),
        Column("correlation_id", Text),
        Column("causation_id", Text),
        Column("caused_by", Text),
        Column("stream", Text),
        Column("stream_version", Integer),
        Column("time", moment, nullable=False),
        Column("written_at", moment, nullable=False, server_default=now),
        Column("due_at", moment),
        Column("headers", extra, nullable=False),
        Column("content_type", Text, nullable=False),
        Column("body", body, nullable=False),
        *(_journal_indexes(f"{prefix}events") if keeps else ()),
        sqlite_autoincrement=True,
    )
    table(
        "inbox",
        Column("queue", label, primary_key=True),
        Column("event", digest, primary_key=True),
        Column("fingerprint", digest, nullable=False),
        Column("handled_at", moment, nullable=False, server_default=now),
        Index(f"{prefix}inbox_handled", "handled_at", postgresql_using="brin"),
    )
    # What has a position, a lease or both, by its name: `schema` (its version), `shard:NN`, `relay:TOKEN`, `sweeper`
    # (leases), `sequencer` (the last position given), `floor` (up to its `seq` all have a position or never will), and
    # the readers `projection:NAME:VERSION`, `feed:QUEUE`, `feed-end:QUEUE`, `stream:NAME`.
    table(
        "cursors",
        Column("name", label, primary_key=True),
        Column("position", BigInteger, nullable=False, server_default=text("0")),
        Column("token", Text),
        Column("lease_until", moment),
        postgresql_with={"fillfactor": "50"},
    )
    table(
        "held",
        Column("seq", serial, primary_key=True, autoincrement=False),
        Column("key", Text, nullable=False),
        Column("event_id", Text, nullable=False),
        Column("attempts", Integer, nullable=False),
        Column("next_try", moment, nullable=False),
        Column("error", Text, nullable=False),
        Index(f"{prefix}held_key", "key", mysql_length=191, mariadb_length=191),
    )
    if not is_mysql:
        _sagas(table, prefix, moment, extra, now)
    if keeps:
        _add_journal(table, serial, prefix)
    return metadata


def _sagas(table: Any, prefix: str, moment: TypeEngine[Any], extra: TypeEngine[Any], now: Any) -> None:
    """Define the tables of sagas: where each stands, and each of its steps."""

    def partial(name: str, predicate: str, *columns: str) -> Index:
        return Index(f"{prefix}{name}", *columns, postgresql_where=text(predicate), sqlite_where=text(predicate))

    table(
        "sagas",
        Column("saga", Text, primary_key=True),
        Column("key", Text, primary_key=True),
        Column("life", Text, nullable=False),
        Column("version", Integer, nullable=False),
        Column("stage", Text, nullable=False),
        Column("entered", Integer, nullable=False),
        Column("state", extra, nullable=False),
        Column("state_version", Integer, nullable=False),
        Column("undo", extra, nullable=False),
        Column("due_at", moment),
        Column("reason", Text),
        Column("began_at", moment, nullable=False),
        Column("changed_at", moment, nullable=False),
        Column("ended_at", moment),
        partial("sagas_due", "due_at is not null", "saga", "due_at"),
        partial("sagas_stage", "ended_at is null", "saga", "stage", "changed_at"),
        partial("sagas_ended", "ended_at is not null", "saga", "ended_at"),
        postgresql_with={"fillfactor": "70"},
    )
    table(
        "saga_steps",
        Column("saga", Text, primary_key=True),
        Column("key", Text, primary_key=True),
        Column("life", Text, primary_key=True),
        Column("version", Integer, primary_key=True),
        Column("event_id", Text, primary_key=True),
        Column("event_type", Text, nullable=False),
        Column("stage_before", Text),
        Column("stage", Text, nullable=False),
        Column("taken", Text, nullable=False),
        Column("published", extra, nullable=False),
        Column("note", Text),
        Column("at", moment, nullable=False, server_default=now),
    )


def _journal_indexes(events: str) -> Iterator[Index]:
    of_streams = text("stream_version is not null")
    yield Index(f"{events}_id", "event_id", unique=True)
    yield Index(
        *(f"{events}_stream", "key", "stream", "stream_version"),
        unique=True,
        postgresql_where=of_streams,
        sqlite_where=of_streams,
    )
    yield Index(f"{events}_correlation", "correlation_id")


def _add_journal(table: Callable[..., None], serial: TypeEngine[Any], prefix: str) -> None:
    table(
        "positions",
        Column("position", serial, primary_key=True, autoincrement=False),
        Column("seq", BigInteger, nullable=False, unique=True),
    )
    table(
        "unsent",
        Column("seq", serial, primary_key=True, autoincrement=False),
        Column("position", BigInteger, nullable=False),
        Column("shard", SmallInteger, nullable=False),
        Index(f"{prefix}unsent_position", "position"),
    )
    table(
        "snapshots",
        Column("stream", Text, primary_key=True),
        Column("key", Text, primary_key=True),
        Column("stream_version", Integer, nullable=False),
        Column("shape", Integer, nullable=False),
        Column("state", Text, nullable=False),
    )


def rest(schema: str = "holdfast", *, dialect: str = "postgresql", keeps: bool = False) -> Iterator[str]:
    """Return the statements that follow the tables: their storage parameters, and the rows that are always there."""
    statements = statements_of(dialect, schema)
    if dialect == "postgresql":
        yield f"alter table {statements.table('events')} set ({_STORAGE})"
    rows = [("schema", VERSION), *((f"shard:{n:02d}", n) for n in range(SHARDS)), ("sweeper", 0)]
    values = ", ".join(f"('{name}', {position})" for name, position in rows)
    yield f"insert into {statements.table('cursors')} (name, position) values {values}"
    if keeps:
        yield f"insert into {statements.table('cursors')} (name, position) values ('sequencer', 0), ('floor', 0)"


def upgrade(operations: Any, *, schema: str = "holdfast", keeps: bool = False) -> None:
    """Finish an Alembic migration that made the tables: `upgrade(op)` at its end does what autogenerate cannot see."""
    for statement in rest(schema, dialect=operations.get_bind().dialect.name, keeps=keeps):
        operations.execute(statement)


def ddl(schema: str = "holdfast", *, dialect: str = "postgresql", keeps: bool = False) -> list[str]:
    """Return the statements that make the tables, in order. With `keeps` they keep the events that were sent."""
    made: list[str] = [f"create schema {schema}"] if dialect == "postgresql" else []
    driver = {"postgresql": "postgresql+psycopg", "mysql": "mysql+pymysql"}.get(dialect := dialect_of(dialect), dialect)

    def note(statement: Any, *_: Any) -> None:
        made.append(_text(statement, engine.dialect))

    engine: Any = create_mock_engine(f"{driver}://", note)
    tables(schema, dialect=dialect, keeps=keeps).create_all(engine, checkfirst=False)
    return [*made, *rest(schema, dialect=dialect, keeps=keeps)]


def columns(schema: str, *, dialect: str, keeps: bool = False) -> dict[str, list[str]]:
    """Return the names of the columns of each table."""
    metadata = tables(schema, dialect=dialect, keeps=keeps)
    return {table.fullname: [column.name for column in table.columns] for table in metadata.tables.values()}


def _text(statement: Any, dialect: Any) -> str:
    return "\n".join(line.rstrip() for line in str(statement.compile(dialect=dialect)).strip().splitlines())
