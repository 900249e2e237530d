"""`holdfast sql`: Holdfast's tables, printed, made and checked."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from ..config import Settings, load_settings
from ..events import ConfigurationError
from ..sql import Database, Row, Statements, Steps, columns, ddl, first_line


def print_schema(dialect: str | None, *, apply: bool, journal: bool) -> None:
    """Print the statements that make the tables, and execute them with `apply`; with `journal`, only what tables that
    do not keep their events lack."""
    settings = load_settings()
    applied = asyncio.run(_apply(settings, journal=journal)) if apply else None
    url = settings.sql.url.get_secret_value() if settings.sql.url is not None else "postgresql"
    for statement in _statements(settings, dialect or url.partition(":")[0].partition("+")[0], journal=journal):
        print(f"{statement};")
    if applied is not None:
        print(f"holdfast: applied to database {applied}", file=sys.stderr)


def _statements(settings: Settings, dialect: str, *, journal: bool) -> list[str]:
    schema = settings.sql.schema
    if not journal:
        return ddl(schema, dialect=dialect, keeps=settings.sql.keeps)
    made = ddl(schema, dialect=dialect)
    return [statement for statement in ddl(schema, dialect=dialect, keeps=True) if statement not in made]


def check_schema() -> None:
    """Print that the tables are as this release needs them. Raises `ConfigurationError` where they are not."""
    settings = load_settings()
    print(asyncio.run(_check(settings)))


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Database[Any]]:
    """Open the database of the settings. Raises `ConfigurationError` where there is none."""
    if settings.sql.url is None:
        raise ConfigurationError("HOLDFAST_SQL__URL is not set: which database?")
    is_pooled = settings.sql.listen_url is not None
    database = Database.of_url(settings.sql.url.get_secret_value(), is_pooled=is_pooled)
    try:
        yield database
    finally:
        await database.close()


def sending(database: Database[Any], settings: Settings) -> Statements:
    """Return the statements of the events to be sent, of tables that keep them or not."""
    sql = settings.sql
    return database.kept(sql.schema) if sql.keeps else database.statements(sql.schema)


async def ask(database: Database[Any], statement: str, **params: Any) -> list[Row]:
    """Return what one statement answers."""

    def steps() -> Steps[list[Row]]:
        return (yield statement, params)

    return await database.run(steps())


async def _apply(settings: Settings, *, journal: bool) -> str:
    def steps(database: Database[Any]) -> Steps[None]:
        for statement in _statements(settings, database.dialect, journal=journal):
            yield statement, {}

    async with opened(settings) as database:
        await database.run(steps(database), within=None)
        return database.name


async def _check(settings: Settings) -> str:
    schema, faults = settings.sql.schema, list[str]()
    async with opened(settings) as database:
        await database.check(schema, keeps=settings.sql.keeps)
        for table, names in columns(schema, dialect=database.dialect, keeps=settings.sql.keeps).items():
            try:
                await ask(database, f"select {', '.join(f't.{name}' for name in names)} from {table} t where 1 = 0")
            except Exception as error:  # noqa: BLE001 (each driver has its own for a column that is not there)
                faults.append(f"database {database.name}: {table}: {first_line(error)}")
    if faults:
        raise ConfigurationError(*faults)
    return f"database {database.name}: the tables of schema {schema} are as needed"
