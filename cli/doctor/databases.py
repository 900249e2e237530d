"""The databases of handlers, and the one of the settings: tables, relays, pools, and what PostgreSQL says of itself."""

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

from ...config import Settings, SqlSettings
from ...consumer import HandlerSpec
from ...events import ConfigurationError
from ...sql import SHARDS, Database, DatabaseUnavailable, Listener, Statements, Steps
from ..sql import sending
from .catalogue import Finding

LONG = 300.0
"""Seconds after which a transaction is a finding."""

WAITED = 60.0
"""Seconds after which an event that waits with no relay alive is a finding."""

_TO_HEAR = 5.0
_DEAD = 100_000  # rows that are deleted and not removed


async def of_databases(settings: Settings, handlers: tuple[HandlerSpec, ...]) -> list[tuple[str, list[Finding]]]:
    """Look at each database. Returns what was looked at, in words, and the findings."""
    databases = dict.fromkeys(spec.within for spec in handlers if spec.within is not None)
    if settings.sql.url is not None:
        with suppress(ConfigurationError):  # no driver here: its program says so
            is_pooled = settings.sql.listen_url is not None
            databases[Database.of_url(settings.sql.url.get_secret_value(), is_pooled=is_pooled)] = None
    looked = []
    for database in databases:
        try:
            looked.append((f"database: {database.name}", await _look(database, settings)))
        finally:
            with suppress(Exception):
                await database.close()
        looked[-1][1].extend(of_pool(database, handlers, settings))
    return looked


async def _look(database: Database[Any], settings: Settings) -> list[Finding]:
    schema = settings.sql.schema
    try:
        await database.check(schema, keeps=settings.sql.keeps)
    except DatabaseUnavailable as error:
        return [Finding("database-unreachable", str(error))]
    except ConfigurationError as error:
        return [Finding("tables-differ", str(error))]
    findings = list(of_outbox(database.name, *(await database.run(_figures(sending(database, settings))))))
    if database.dialect == "postgresql":
        findings += of_postgres(database.name, *(await database.run(_postgres(database, schema))))
        findings += await _hearing(database, settings.sql)
    return findings


def of_outbox(name: str, pending: int, oldest: float | None, held: int, alive: int) -> Iterator[Finding]:
    """Judge how many events wait, the age of the oldest, how many are held, and how many relays are alive."""
    if alive == 0 and pending and (oldest or 0.0) > WAITED:
        yield Finding("relay-missing", f"database {name}: {pending} event(s), the oldest for {oldest:.0f} s")
    if held:
        yield Finding("outbox-held", f"database {name}: {held} event(s)")
    if alive > SHARDS:
        yield Finding("relays-idle", f"database {name}: {alive} relays for {SHARDS} shards")


def of_postgres(name: str, longest: float, options: str, live: int, dead: int) -> Iterator[Finding]:
    """Judge the seconds of the longest transaction, the options of the table `events`, and its rows."""
    if longest > LONG:
        yield Finding("transaction-long", f"database {name}: a transaction is open for {longest:.0f} s")
    if "autovacuum_vacuum_scale_factor" not in options:
        yield Finding("autovacuum-unset", f"database {name}: the table events has the options {options or '(none)'}")
    if dead > max(_DEAD, live):
        yield Finding("events-bloated", f"database {name}: the table events has {dead} deleted rows and {live} others")


def of_pool(database: Database[Any], handlers: Iterable[HandlerSpec], settings: Settings) -> Iterator[Finding]:
    """Judge whether the pool has a connection for each handler that runs, one for the relay and one to listen on."""
    most = settings.worker.concurrency
    wanted = sum(spec.concurrency or most for spec in handlers if spec.within is database)
    size = database.pool_size()
    if wanted and size is not None and size < (needed := min(wanted, most) + 2):
        yield Finding("pool-small", f"database {database.name}: {size} connections, and up to {needed} are needed")


async def _hearing(database: Database[Any], settings: SqlSettings) -> list[Finding]:
    """Prove that notifications arrive."""
    proved, deaf = asyncio.Event(), list[Finding]()

    def on_deaf() -> None:
        deaf.append(Finding("outbox-deaf", f"database {database.name}"))
        proved.set()

    url = settings.listen_url.get_secret_value() if settings.listen_url is not None else None
    listener = Listener(database, settings.schema, proved.set, url=url)
    if not listener.is_able:
        return []
    listening = asyncio.create_task(listener.listen(on_deaf))
    with suppress(TimeoutError):
        async with asyncio.timeout(_TO_HEAR):
            await proved.wait()
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
    return deaf


def _figures(statements: Statements) -> Steps[tuple[int, float | None, int, int]]:
    [(pending, oldest, held)] = yield statements.figures, {}
    [(alive,)] = yield statements.alive, {}
    return pending, oldest, held, alive


def _postgres(database: Database[Any], schema: str) -> Steps[tuple[float, str, int, int]]:
    transactions = (
        "select coalesce(cast(max(extract(epoch from clock_timestamp() - xact_start)) as double precision), 0) "
        "from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
    )
    [(longest,)] = yield transactions, {}
    table = f"cast('{database.statements(schema).table('events')}' as regclass)"
    [(options,)] = yield f"select coalesce(cast(reloptions as text), '') from pg_class where oid = {table}", {}
    rows = yield f"select n_live_tup, n_dead_tup from pg_stat_user_tables where relid = {table}", {}
    live, dead = rows[0] if rows else (0, 0)
    return longest, options, live, dead
