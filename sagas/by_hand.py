"""Sagas that are moved by hand. Each act is a step like any other: versioned, written, its events in one commit."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeAlias

from ..events import ConfigurationError, Envelope, derived_id, headers, replay_mark, seal, uuid7
from ..sql import Database, Outgoing, Statements, Steps
from . import machine
from .declaring import Saga
from .machine import Moved
from .stages import COMPENSATING, STUCK, Stage
from .store import Record, Written
from .upkeep import Upkeep
from .writing import Writing

Act: TypeAlias = Callable[[Record], Moved[Any] | None]
"""What is done to a saga; None leaves it as it is."""


class ByHand:
    """Acts on the sagas of one kind. `source` names the worker, whose events these are too. `keeps` says whether the
    database keeps the events that were sent."""

    def __init__(
        self, saga: type[Saga], database: Database[Any], *, schema: str, source: str, queue: str, keeps: bool
    ) -> None:
        self._graph, self._database = saga.graph(), database
        self._statements: Statements = database.statements(schema)
        self._kept = database.kept(schema) if keeps else None
        self._store = Upkeep(self._statements, self._graph.saga)
        self._writing = Writing(saga)
        self._source, self._queue = source, queue

    async def nudge(self, key: str, why: str) -> None:
        """Publish the undo that is awaited again, under the same event id, so that it is handled again.

        Raises `ConfigurationError` where none is awaited, and for one that a relay has not sent yet.
        """

        def act(record: Record) -> Moved[Any]:
            before = self._compensating(record, key)
            due = before.undo[0].limit
            return replace(before, stage=COMPENSATING, due=due, taken="by hand", has_entered=True)

        await self._database.run(self._step(key, act, "nudge", why, is_forced=True))

    async def skip_undo(self, key: str, why: str) -> None:
        """Take the undo that is awaited for done, and go on with the next. Raises as `nudge` does."""

        def act(record: Record) -> Moved[Any]:
            return replace(machine.answered(self._graph, self._compensating(record, key)), taken="by hand")

        await self._database.run(self._step(key, act, "skip-undo", why))

    async def move(self, key: str, stage: str, why: str, *, of_stage: str | None = None) -> bool:
        """Move a saga to a stage, whose limit begins. With `of_stage` it is left as it is once it rests in another one.

        Returns whether it was moved. Raises `ConfigurationError` for a stage or a saga that there is not.
        """
        target = self._stage(stage)

        def act(record: Record) -> Moved[Any] | None:
            if of_stage not in (None, record.stage):
                return None
            before = self._writing.read(record, target)
            undo = () if target.end else tuple(replace(one, is_sent=False, event_id=None) for one in before.undo)
            return replace(before, undo=undo, due=target.limit, taken="by hand", has_entered=True)

        return await self._database.run(self._step(key, act, "move", why))

    async def keys_at(self, stage: str) -> list[str]:
        """Return the keys of the sagas that rest in a stage, whether or not there is such a stage now."""
        return await self._database.run(self._store.keys_at(stage))

    def _stage(self, name: str) -> Stage:
        stage = self._graph.stages.get(name)
        if stage is None or stage in (COMPENSATING, STUCK):
            known = ", ".join(one.name for one in self._graph.stages.values() if one not in (COMPENSATING, STUCK))
            raise ConfigurationError(f"saga {self._graph.saga} has no stage {name!r} to move to; it has {known}")
        return stage

    def _compensating(self, record: Record, key: str) -> Moved[Any]:
        before = self._writing.read(record)
        if before.awaited is None:
            raise ConfigurationError(f"saga {self._graph.saga} {key!r} awaits no undo: it is in stage {record.stage!r}")
        return before

    def _step(self, key: str, act: Act, name: str, why: str, *, is_forced: bool = False) -> Steps[bool]:
        """Take a step, again where another transaction has moved the saga meanwhile. Returns whether one was taken."""
        event_id, events, is_written = uuid7(), list[Envelope](), False
        while not is_written:
            record = yield from self._store.load(key)
            if record is None:
                raise ConfigurationError(f"there is no saga {self._graph.saga} {key!r}")
            if (moved := act(record)) is None:
                return False
            moved, events = self._with_events(moved, event_id, is_forced=is_forced)
            sent = [{"id": each.metadata.event_id, "type": each.metadata.event_type} for each in events]
            written = self._writing.write(moved, record.life, record.version)
            ends, before = moved.stage.end, record.stage
            step = Written(written, True, ends, moved.due, event_id, name, before, "by hand", sent, why)
            is_written = yield from self._store.move(key, step, None)
        if not (is_forced and self._kept is not None and (yield from self._kept.send_again(events[0]))):
            yield from self._statements.inserts(map(Outgoing, events))
        return True

    def _with_events(self, moved: Moved[Any], event_id: str, *, is_forced: bool) -> tuple[Moved[Any], list[Envelope]]:
        """Return a saga with the ids of the events that it publishes, and these."""
        if is_forced:
            return moved, [self._forced(moved, event_id)]
        events = [self._sealed(event, event_id, n) for n, (event, _) in enumerate(moved.sent)]
        if moved.awaited is not None and events:
            moved = machine.sent_as(moved, events[-1].metadata.event_id)
        return moved, events

    def _sealed(self, event: Any, event_id: str, position: int) -> Envelope:
        derived = derived_id(event_id, self._graph.saga, position)
        return seal(event, source=self._source, caused_by=self._queue, event_id=derived, now=datetime.now(UTC))

    def _forced(self, moved: Moved[Any], name: str) -> Envelope:
        undo = moved.undo[0]
        envelope = seal(
            undo.event, source=self._source, caused_by=self._queue, event_id=undo.event_id, now=datetime.now(UTC)
        )
        marks = {headers.REPLAY: replay_mark(name, "nudge"), headers.REPLAY_FORCED: name}
        return replace(envelope, headers={**envelope.headers, **marks})
