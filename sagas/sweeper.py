"""What runs next to a saga's handler: it fires time limits that are over, counts sagas, and forgets old ones."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any

from ..broker import REAL, Clock
from ..config import Settings
from ..consumer.handler import Committed
from ..events import ConfigurationError, derived_id, seal
from ..sql import Database, DatabaseUnavailable, Outgoing, Row, Steps, first_line
from ..telemetry import Emit, SagasCounted, SagasSwept, heed_cancellation
from .declaring import Overdue, Saga
from .store import Record
from .upkeep import Past, Upkeep, past_of
from .writing import Standing, Writing

_EVERY = 1.0  # seconds between two looks for limits that are over
_COUNT_EVERY = 10.0
_FORGET_EVERY = 60.0
_MOST = 100
_FORGOTTEN = 1000


class Sweeper:
    """Fires the limits that are over: each goes to the saga's own queue, as an event. Any number share the rows."""

    def __init__(
        self,
        saga: type[Saga],
        queue: str,
        database: Database[Any],
        settings: Settings,
        clock: Clock,
        emit: Emit,
        committed: Committed,
    ) -> None:
        self._saga, self._queue, self._database = saga, queue, database
        self._clock, self._emit, self._committed = clock, emit, committed
        self._keep = settings.sql.saga_keep
        self._statements = database.statements(settings.sql.schema)
        self._store = Upkeep(self._statements, saga.graph().saga)
        self._stages = {stage.name for stage in saga.graph().stages.values() if not stage.end}

    async def check(self) -> None:
        """Raise `ConfigurationError`, a line for each stage and version of the state that sagas have and this program
        does not. A database that is unavailable is not asked: a step that meets such a saga fails."""
        try:
            rows = await self._database.run(self._store.resting())
        except DatabaseUnavailable:
            return
        except Exception as error:  # each driver has its own for a table that is not there
            raise ConfigurationError(
                f"database {self._database.name}: the tables of sagas cannot be read ({first_line(error)}); "
                "make them by the statements of `holdfast sql schema`, or with its --apply"
            ) from error
        if faults := list(self._faults(rows)):
            raise ConfigurationError(*faults)

    def _faults(self, rows: list[Row]) -> Iterator[str]:
        saga, stages, versions = self._store.saga, self._saga.graph().stages, Writing(self._saga).versions
        for stage, version, count in rows:
            rest = f"{count} saga{'s rest' if count > 1 else ' rests'}"
            if stage not in stages:
                yield (
                    f"saga {saga}: {rest} in stage {stage!r}, which is gone; keep it, or move them: "
                    f"holdfast sagas move MODULE:WORKER {saga} --from {stage} --to STAGE --why TEXT"
                )
            if version not in versions:
                yield (
                    f"saga {saga}: {rest} with version {version} of the state, which nothing reads; "
                    f"write @upcast from it to version {self._saga.__event_version__}"
                )

    async def fire(self) -> float | None:
        """Fire the limits that are over. Returns when the next is, in seconds since 1970."""
        fired = _MOST
        while fired == _MOST:
            if fired := await self._database.run(self._fire()):
                await self._committed()
        return await self._database.run(self._store.next_due())

    async def standing(self) -> dict[tuple[str, str], Standing[Any]]:
        """Return every saga, by its name and key."""
        writing, name = Writing(self._saga), self._store.saga
        steps = dict[str, list[Past]]()
        for row in await self._database.run(self._store.history()):
            steps.setdefault(row[0], []).append(past_of(row))
        standing = dict[tuple[str, str], Standing[Any]]()
        for record in await self._database.run(self._store.standing()):
            key, saga = record[0], writing.read(Record(*record[1:]))
            standing[name, key] = Standing(saga.state, saga.stage, saga.reason, saga.undo, tuple(steps.get(key, ())))
        return standing

    async def run(self) -> None:
        """Fire each second, count, and forget, until cancelled. The relay reports a database that is unavailable."""
        counted = forgot = -_FORGET_EVERY
        while True:
            heed_cancellation()
            try:
                fired = await self._database.run(self._fire())
                if fired:
                    await self._committed()
                if (now := time.monotonic()) >= counted + _COUNT_EVERY:
                    await self._count()
                    counted = now
                if now >= forgot + _FORGET_EVERY:
                    await self._forget()
                    forgot = now
            except DatabaseUnavailable:
                fired = 0
            if fired < _MOST:
                await asyncio.sleep(_EVERY)

    def _fire(self) -> Steps[int]:
        """Clear the limits that are over and write their events: one commit."""
        now = None if self._clock is REAL else self._clock.now().timestamp() + 0.001  # a clock that stands at a limit
        rows = yield from self._store.overdue(now, _MOST)
        if rows:
            yield self._statements.insert([self._outgoing(row) for row in rows])
        return len(rows)

    def _outgoing(self, row: Row) -> Outgoing:
        key, life, entered, stage = row
        overdue: Overdue = self._saga.__overdue__(key=key, life=life, entered=entered, stage=stage)
        event_id = derived_id(life, f"{self._store.saga}.overdue", entered)
        envelope = seal(overdue, source=self._queue, caused_by=self._queue, event_id=event_id, now=self._clock.now())
        return Outgoing(envelope)

    async def _count(self) -> None:
        rows = await self._database.run(self._store.figures())
        known = {stage: (stage, 0, 0.0) for stage in sorted(self._stages)}
        known |= {stage: (stage, int(count), max(float(oldest or 0.0), 0.0)) for stage, count, oldest in rows}
        self._emit(SagasCounted(self._store.saga, tuple(known.values())))

    async def _forget(self) -> None:
        total, forgotten = 0, _FORGOTTEN
        while forgotten == _FORGOTTEN:
            began = time.monotonic()
            total += (forgotten := await self._database.run(self._store.forget(self._keep)))
            await asyncio.sleep(4 * (time.monotonic() - began))
        if total:
            self._emit(SagasSwept(self._store.saga, total))
