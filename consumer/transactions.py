"""The databases of a worker's handlers: whether each can be used, and the relay that sends what is committed there.

Nothing of databases is imported where no handler has one.
"""

import asyncio
from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from ..broker import Broker
from ..config import Settings
from ..telemetry import Emit, Spans, end, keep_running
from .dependencies import Dependencies
from .following import Follower
from .handler import Committed, Companion, HandlerSpec

if TYPE_CHECKING:
    from ..outbox import Relay
    from ..sql import Database
    from .parts import Job, Part
    from .within import DatabaseAvailability, Within

_NOTING = 2.5  # seconds in which a relay notes what it sent, after the half lease that a publish may take


class Transactions:
    """The databases of one run of a worker. `changes` is set when one becomes unavailable, or available."""

    def __init__(
        self,
        handlers: Iterable[HandlerSpec],
        parts: "Mapping[Part, Database[Any]]",
        settings: Settings,
        emit: Emit,
        spans: Spans,
        given: Dependencies,
        changes: asyncio.Event,
    ) -> None:
        self.databases: dict[Database[Any], DatabaseAvailability] = {}
        self._settings, self._emit, self._spans, self._given = settings, emit, spans, given
        self._handlers = tuple(handlers)
        self._relays: dict[Database[Any], Relay] = {}
        self._working: list[asyncio.Task[None]] = []
        self._relaying: list[asyncio.Task[None]] = []
        self._companions: list[asyncio.Task[None]] = []
        self._parts = parts
        self._jobs: list[Job] = []
        for database in {*parts.values(), *(spec.within for spec in self._handlers if spec.within is not None)}:
            from . import within

            sql, clock, luck = settings.sql, given.clock, given.luck
            self.databases[database] = within.DatabaseAvailability(database, sql, clock, luck, emit, changes)

    async def start(self, broker: Broker) -> None:
        """Check the schemas, and begin to send what is committed. Raises `ConfigurationError`."""
        await asyncio.gather(*(database.start() for database in self.databases.values()))
        for database in self.databases:
            from .. import outbox

            settings, emit, clock, luck = self._settings, self._emit, self._given.clock, self._given.luck
            relay = outbox.Relay(database, broker, settings, emit=emit, spans=self._spans, clock=clock, luck=luck)
            self._relays[database] = relay
            if not (self._given.relays_at_once or self._given.rehearses):
                relaying = keep_running("relay", partial(outbox.relaying, relay, settings, emit, clock), emit)
                name = f"holdfast relay of {database.name}"
                self._relaying.append(asyncio.create_task(relaying, name=name))
        for part, database in self._parts.items():
            self._begin(part, database)
        companions = [self._companion(spec) for spec in self._handlers if spec.companion is not None]
        await asyncio.gather(*(companion.check() for companion in companions))
        for companion in companions:
            if self._given.companions is not None:
                self._given.companions.append(companion)
            if self._given.companions is not None or self._given.rehearses:
                continue
            running = keep_running("sagas", companion.run, self._emit)
            self._companions.append(asyncio.create_task(running, name="holdfast sagas"))

    def _companion(self, spec: HandlerSpec) -> Companion:
        if spec.companion is None or spec.within is None:
            raise RuntimeError("a companion needs a database")
        return spec.companion(self._settings, self._given.clock, self._emit, self._committed(spec.within))

    def _begin(self, part: "Part", database: "Database[Any]") -> None:
        """Have a part work next to the handlers, woken by what the relay of its database gives positions to."""
        job = part.job(database, self._settings, self._emit, self._given.clock)
        self._jobs.append(job)
        if self._given.jobs is not None:
            self._given.jobs.append(job)
        self._relays[database].on_positions += (job.wake,)
        if not self._given.relays_at_once:
            working = keep_running("projection", job.run, self._emit)
            self._working.append(asyncio.create_task(working, name=f"holdfast projection {part.title}"))

    def _committed(self, database: "Database[Any]") -> Committed:
        relay = self._relays[database]

        async def wake() -> None:
            relay.wake()

        async def drain() -> None:
            await relay.drain()
            for job in self._given.jobs or ():
                await job.drain()

        return drain if self._given.relays_at_once else wake

    def needed_by(self, spec: HandlerSpec) -> "tuple[DatabaseAvailability, ...]":
        """Return the database of a handler that has one."""
        return (self.databases[spec.within],) if spec.within is not None else ()

    def within(self, spec: HandlerSpec, follower: Follower) -> "Within | None":
        """Return the transactions of a handler that has a database."""
        if spec.within is None:
            return None
        from .within import Within

        committed = None if self._given.rehearses else self._committed(spec.within)
        return Within(spec, self.databases[spec.within], committed, self._emit, follower)

    def missing(self) -> tuple[str, ...]:
        """Return what keeps the relays and the parts from being ready."""
        working = (*self._relays.values(), *self._jobs)
        return tuple(missing for each in working if (missing := each.missing()) is not None)

    async def stop(self) -> None:
        """Send nothing new, and return once what is in flight is noted."""
        for task in self._companions:
            task.cancel()
        for relay in self._relays.values():
            relay.stop()
        for task in self._working:
            task.cancel()
        patience = self._settings.sql.lease / 2 + _NOTING
        await end((*self._companions, *self._relaying, *self._working), patience=patience)
        await asyncio.gather(*(database.stop_recovery() for database in self.databases.values()))
