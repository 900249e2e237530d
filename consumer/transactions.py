"""The databases of a worker's handlers: whether each can be used, and the relay that sends what is committed there.

Nothing of databases is imported where no handler has one.
"""

import asyncio
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from ..broker import Broker
from ..config import Settings
from ..telemetry import Emit, Spans, keep_running
from .dependencies import Dependencies
from .handler import HandlerSpec

if TYPE_CHECKING:
    from ..outbox import Relay
    from ..sql import Database
    from .within import DatabaseAvailability, Within


class Transactions:
    """The databases of one run of a worker. `changes` is set when one becomes unavailable, or available."""

    def __init__(
        self,
        handlers: Iterable[HandlerSpec],
        settings: Settings,
        emit: Emit,
        spans: Spans,
        given: Dependencies,
        changes: asyncio.Event,
    ) -> None:
        self.databases: dict[Database[Any], DatabaseAvailability] = {}
        self._settings, self._emit, self._spans, self._given = settings, emit, spans, given
        self._relays: dict[Database[Any], Relay] = {}
        self._relaying: list[asyncio.Task[None]] = []
        for database in {spec.within for spec in handlers if spec.within is not None}:
            from . import within

            schema, clock, luck = settings.sql.schema, given.clock, given.luck
            self.databases[database] = within.DatabaseAvailability(database, schema, clock, luck, emit, changes)

    async def start(self, broker: Broker) -> None:
        """Check the schemas, and begin to send what is committed. Raises `ConfigurationError`."""
        await asyncio.gather(*(database.start() for database in self.databases.values()))
        for database in self.databases:
            from .. import outbox

            settings, emit, clock, luck = self._settings, self._emit, self._given.clock, self._given.luck
            relay = outbox.Relay(database, broker, settings, emit=emit, spans=self._spans, clock=clock, luck=luck)
            self._relays[database] = relay
            if not self._given.relays_at_once:
                relaying = keep_running("relay", partial(outbox.relaying, relay, settings, emit, clock), emit)
                name = f"holdfast relay of {database.name}"
                self._relaying.append(asyncio.create_task(relaying, name=name))

    def needed_by(self, spec: HandlerSpec) -> "tuple[DatabaseAvailability, ...]":
        """Return the database of a handler that has one."""
        return (self.databases[spec.within],) if spec.within is not None else ()

    def within(self, spec: HandlerSpec) -> "Within | None":
        """Return the transactions of a handler that has a database."""
        if spec.within is None:
            return None
        from .within import Within

        relay = self._relays[spec.within]

        async def wake() -> None:
            relay.wake()

        committed = relay.drain if self._given.relays_at_once else wake
        return Within(spec, self.databases[spec.within], committed, self._emit)

    def missing(self) -> tuple[str, ...]:
        """Return what keeps the relays from being ready."""
        return tuple(missing for relay in self._relays.values() if (missing := relay.missing()) is not None)

    async def stop(self) -> None:
        """Send nothing new, and return once what is in flight is noted."""
        for relay in self._relays.values():
            relay.stop()
        await asyncio.gather(*self._relaying, return_exceptions=True)
        await asyncio.gather(*(database.stop_recovery() for database in self.databases.values()))
