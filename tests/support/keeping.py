"""A database in a file that keeps its events, for commands and readers."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, cast

from waiting import LIMIT, Facts

from holdfast import Event, Metadata, Settings
from holdfast.broker import REAL, Broker
from holdfast.outbox import Relay
from holdfast.sql import Database, Outbox, ddl
from holdfast.telemetry import Spans


class AllConfirming:
    """A broker that confirms all."""

    header_budget = 100_000

    async def publish(self, *arguments: Any, **options: Any) -> None: ...

    async def declare(self, *arguments: Any) -> None: ...


class KeptFile:
    """Its tables are made with it. `broker` is where its events are sent."""

    def __init__(self, path: Path, settings: Settings, broker: Broker | None = None) -> None:
        self.path, self.settings = path, settings
        self.database = Database.sqlite(str(path))
        self._broker = broker or cast("Broker", AllConfirming())
        with sqlite3.connect(path) as connection:
            for statement in ddl(settings.sql.schema, dialect="sqlite", keeps=True):
                connection.execute(statement)
        connection.close()

    def publish(self, *events: Event, cause: Metadata | None = None, by: str | None = None) -> list[Metadata]:
        """Commit events in one transaction, as effects of another one where a cause is given."""
        outbox, sent = Outbox(self.settings, source="shop"), list[Metadata]()
        events_table = f"{self.settings.sql.schema}_events"
        with sqlite3.connect(self.path) as connection:
            for event in events:
                sent.append(outbox.publish(connection, event))
                if cause is not None:
                    connection.execute(
                        f"update {events_table} set causation_id = ?, correlation_id = ?, caused_by = ? "
                        "where event_id = ?",
                        (cause.event_id, cause.correlation_id or cause.event_id, by, sent[-1].event_id),
                    )
        connection.close()
        return sent

    async def relay(self) -> None:
        """Send what is committed."""
        emit = Facts().record
        relay = Relay(
            self.database, self._broker, self.settings, emit=emit, spans=Spans(), clock=REAL, luck=lambda: 0.0
        )
        await relay.drain()
        await relay.leases.leave()

    async def ask(self, statement: str) -> list[tuple[Any, ...]]:
        """What a statement answers. One that only reads waits for no writer that goes on."""

        def execute() -> list[tuple[Any, ...]]:
            with closing(sqlite3.connect(self.path, timeout=LIMIT)) as connection, connection:
                return connection.execute(statement).fetchall()

        return await asyncio.to_thread(execute)
