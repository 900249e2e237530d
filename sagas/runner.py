"""The handler of a saga: one event, one locked row, one step, within the transaction that the worker opened."""

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Generic, TypeVar

from ..broker import REAL
from ..consumer import Context
from ..consumer.context import clock_of, run_of, settings_of
from ..consumer.in_flight import Run
from ..consumer.outcome import Early, Ended
from ..events import Event, uuid7
from ..sql import Database, Opened, OpenedAsync, Params, Steps, play, play_in_thread
from ..telemetry import SagaCompensating, SagaLate, SagaStepped, SagaStuck
from . import machine
from .declaring import Overdue, Saga
from .errors import TooEarly
from .machine import Moved
from .stages import COMPENSATING, STUCK, Transition
from .step import Step
from .store import Record, Sent, Store, Written
from .writing import Writing

T = TypeVar("T", bound=Saga)


class SagaHandler(Generic[T]):
    """Takes the events of one kind of saga. An event that comes too early waits for at most `patience` seconds."""

    def __init__(self, saga: type[T], database: Database[Any], patience: float) -> None:
        self.writing = Writing(saga)
        self._saga, self._database, self._patience = saga, database, patience
        self._graph = saga.graph()
        self.store = lru_cache(maxsize=8)(self._store)

    def _store(self, schema: str) -> Store:
        return Store(self._database.statements(schema), self._graph.saga)

    def enter(self, event: Event, schema: str) -> tuple[str, Params]:
        """Return the statement that enters an event into the inbox, and its parameters."""
        return self.store(schema).enter(self._key(event))

    def function(self) -> Callable[..., Any]:
        """Return the handler's function, for the kind of the database."""
        return self._on_loop if self._database.is_async else self._in_thread

    async def _on_loop(self, event: Event, context: Context, opened: OpenedAsync) -> None:
        taking = None
        while taking is None or not taking.is_written:
            taking = await play(self._begin(event, context), opened.execute)
            if (transition := taking.transition) is not None:
                returned = machine.call(transition, taking.state, event, taking.step_in(opened.user))
                if inspect.isawaitable(returned):
                    returned = await returned
                taking.end(returned)
            await play(self._end(taking, event, context), opened.execute)

    def _in_thread(self, event: Event, context: Context, opened: Opened) -> None:
        taking = None
        while taking is None or not taking.is_written:
            taking = play_in_thread(self._begin(event, context), opened.execute)
            if (transition := taking.transition) is not None:
                taking.end(machine.call(transition, taking.state, event, taking.step_in(opened.user)))
            play_in_thread(self._end(taking, event, context), opened.execute)

    def _begin(self, event: Event, context: Context) -> Steps["Taking[T]"]:
        """Lock the saga and find what takes the event. Raises `Ended` for one that comes too early."""
        key, run = self._key(event), run_of(context)
        entered, run.read = run.read, None
        record = yield from self.store(settings_of(context).sql.schema).load(key, entered)
        before = None if record is None else self.writing.read(record)
        taking = Taking(self._saga, key, record, before)
        if isinstance(event, Overdue):
            taking.expire(event)
            return taking
        try:
            taking.take(event)
        except TooEarly as error:
            raise Ended(Early(error, self._patience)) from error
        return taking

    def _key(self, event: Event) -> str:
        return event.key if isinstance(event, Overdue) else str(getattr(event, self._graph.key))

    def _end(self, taking: "Taking[T]", event: Event, context: Context) -> Steps[None]:
        """Write the saga, its step and its events. Where another transaction began it, all is as if not taken."""
        store, run, moved = self.store(settings_of(context).sql.schema), run_of(context), taking.moved
        now = None if (clock := clock_of(context)) is REAL else clock.now().timestamp()
        if moved is None:  # a limit of a saga that is forgotten
            taking.is_written = True
            return
        sent = self._publish(moved, context)
        taking.moved = moved = _with_id(moved, sent)
        step = self._written(taking, moved, event, context, sent)
        if moved.taken == "late":
            yield from store.note(taking.key, step, now)
            taking.is_written = True
        elif taking.record is None:
            taking.is_written = yield from store.begin(taking.key, step, now)
        else:
            taking.is_written = yield from store.move(taking.key, step, now)
        self._report(taking, step, run)

    def _publish(self, moved: Moved[T], context: Context) -> Sent:
        for sent, delay in moved.sent:
            context.publish(sent, delay=delay)
        events = run_of(context).events or []
        published = [envelope.metadata for envelope, *_ in events[len(events) - len(moved.sent) :]]
        return [{"id": each.event_id, "type": each.event_type} for each in published]

    def _written(self, taking: "Taking[T]", moved: Moved[T], event: Event, context: Context, sent: Sent) -> Written:
        record = taking.record
        life, version = (uuid7(), 0) if record is None else (record.life, record.version)
        return Written(
            self.writing.write(moved, life, version),
            moved.has_entered,
            moved.stage.end,
            moved.due,
            context.event_id,
            event.__event_type__,
            None if record is None else record.stage,
            moved.taken,
            sent,
            moved.reason if record is None or moved.reason != record.reason else None,
        )

    def _report(self, taking: "Taking[T]", step: Written, run: Run) -> None:
        if not taking.is_written:
            run.events = []
            return
        saga, key, record = self._graph.saga, taking.key, step.record
        where = (step.stage_before, record.stage, step.taken, record.reason)
        run.facts.append(SagaStepped(saga, key, step.event_id, *where))
        if step.taken == "late":
            run.facts.append(SagaLate(saga, key, step.event_id, step.event_type, record.stage))
        elif record.stage != step.stage_before and record.stage == STUCK.name:
            run.facts.append(SagaStuck(saga, key, step.event_id))
        elif step.stage_before not in (COMPENSATING.name, STUCK.name) and record.stage == COMPENSATING.name:
            run.facts.append(SagaCompensating(saga, key, step.event_id, record.reason))


class Taking(Generic[T]):
    """One event on its way through a saga: from the row that was locked to what is written."""

    def __init__(self, saga: type[T], key: str, record: Record | None, before: Moved[T] | None) -> None:
        self.key, self.record, self.before = key, record, before
        self.moved: Moved[T] | None = None
        self.transition: Transition | None = None
        self.is_written = False
        self._saga = saga
        self._step = Step(undoable=saga.graph().undo)

    @property
    def state(self) -> T | None:
        """The state, which nothing but this run has."""
        return None if self.before is None else self.before.state

    def take(self, event: Event) -> None:
        """Find what takes an event. Raises `TooEarly`."""
        taking = machine.find(self._saga.graph(), self.before, event.__event_type__)
        if isinstance(taking, Transition):
            self.transition = taking
        elif self.before is not None:
            is_late = taking == "late"
            self.moved = (
                machine.come_late(self.before) if is_late else machine.answered(self._saga.graph(), self.before)
            )

    def expire(self, event: Overdue) -> None:
        """Find what a limit leads to. One that another stage set, or an earlier life of the key, comes late."""
        if self.record is None or self.before is None:
            return
        is_meant = (event.life, event.entered) == (self.record.life, self.record.entered)
        expired = machine.expired(self._saga.graph(), self.before) if is_meant else machine.come_late(self.before)
        if isinstance(expired, Transition):
            self.transition = expired
        else:
            self.moved = expired

    def step_in(self, session: Any) -> Step:
        """Return the step of the method, in a session."""
        self._step.session = session
        return self._step

    def end(self, returned: Any) -> None:
        """Note what the method left. Raises `SagaError`."""
        if self.transition is not None:
            state = self._saga.state_after(self.transition, self.state, returned)
            self.moved = machine.after(self._saga.graph(), self.before, self.transition, state, self._step)


def _with_id(moved: Moved[T], sent: Sent) -> Moved[T]:
    """Return a saga with the id of the undo that this step published last."""
    awaited = moved.awaited
    if awaited is None or awaited.event_id is not None:
        return moved
    return machine.sent_as(moved, sent[-1]["id"])
