"""Sagas as rows: the statements of their tables, and what is written of one as JSON."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from ..sql import Params, Row, Statements, Steps

Sent = list[dict[str, str]]
"""The events that a step published: their ids and types."""
COLUMNS = "life, version, stage, entered, cast(state as text), state_version, cast(undo as text), reason"


@dataclass(frozen=True, slots=True)
class Record:
    """The row of a saga. `undo` and `state` are JSON."""

    life: str
    version: int
    stage: str
    entered: int
    state: str
    state_version: int
    undo: str
    reason: str | None


@dataclass(frozen=True, slots=True)
class Written:
    """What a step writes. `due` is in seconds from now. `record` has the version and the life from before the step."""

    record: Record
    is_entered: bool
    is_ended: bool
    due: float | None
    event_id: str
    event_type: str
    stage_before: str | None
    taken: str
    published: Sent
    note: str | None = None


@dataclass(frozen=True)
class Store:
    """The rows of one kind of saga. `now` is a time in seconds since 1970; without it that of the database counts."""

    statements: Statements
    saga: str

    def enter(self, key: str) -> tuple[str, Params]:
        """Return the statement that enters an event into the inbox. On PostgreSQL it reads the saga too, for `load`."""
        return self._enter, {"saga": self.saga, "key": key}

    def load(self, key: str, entered: Row | None = None) -> Steps[Record | None]:
        """Return a saga, locked until the transaction ends. It is `entered` where the statement of `enter` read it."""
        if entered is not None and self._is_postgres:
            return None if entered[0] is None else Record(*entered)
        rows = yield self._load, {"saga": self.saga, "key": key}
        return Record(*rows[0]) if rows else None

    def begin(self, key: str, step: Written, now: float | None) -> Steps[bool]:
        """Write a new saga with its first step. Returns False where another transaction began it."""
        return (yield from self._write(self._insert, key, step, now))

    def move(self, key: str, step: Written, now: float | None) -> Steps[bool]:
        """Write a saga after a step, and the step. Returns False where it is not as it was."""
        return (yield from self._write(self._update, key, step, now))

    def note(self, key: str, step: Written, now: float | None) -> Steps[None]:
        """Write a step that changes nothing: the event came late."""
        yield f"{self._steps_insert} values ({self._steps_values}) on conflict do nothing", self._params(key, step, now)

    def _write(self, statements: Iterable[str], key: str, step: Written, now: float | None) -> Steps[bool]:
        params = self._params(key, step, now)
        for statement in statements:
            rows = yield statement, params
            if not rows:
                return False
        return True

    def _params(self, key: str, step: Written, now: float | None) -> Params:
        record = step.record
        return {
            "saga": self.saga,
            "key": key,
            "now": now,
            "due": step.due,
            "is_entered": int(step.is_entered),
            "is_ended": int(step.is_ended),
            "event_id": step.event_id,
            "event_type": step.event_type,
            "stage_before": step.stage_before,
            "taken": step.taken,
            "published": json.dumps(step.published) if step.published else "[]",
            "note": step.note,
            "step_version": record.version + (step.taken != "late"),
            "life": record.life,
            "version": record.version,
            "stage": record.stage,
            "state": record.state,
            "state_version": record.state_version,
            "undo": record.undo,
            "reason": record.reason,
        }

    @property
    def _is_postgres(self) -> bool:
        return self.statements.dialect == "postgresql"

    @property
    def _sagas(self) -> str:
        return self.statements.table("sagas")

    @property
    def _steps(self) -> str:
        return self.statements.table("saga_steps")

    @cached_property
    def _now(self) -> str:
        if self._is_postgres:
            return "coalesce(to_timestamp(cast(:now as double precision)), clock_timestamp())"
        return f"coalesce(:now, {self.statements.now})"

    @cached_property
    def _due(self) -> str:
        if self._is_postgres:
            return f"{self._now} + make_interval(secs => cast(:due as double precision))"
        return f"{self._now} + :due"

    @cached_property
    def _enter(self) -> str:
        if not self._is_postgres:
            return self.statements.enter
        return self.statements.enter_and_read(self._locked("exists (select from entered) and "))

    @cached_property
    def _load(self) -> str:
        return self._locked()

    def _locked(self, condition: str = "") -> str:
        """Return the statement that reads a saga and locks its row. It waits two seconds for another step."""
        row = f"{condition}saga = :saga and key = :key"
        if not self._is_postgres:
            return f"select {COLUMNS} from {self._sagas} where {row}"
        return (
            "with patience as materialized (select set_config('lock_timeout', '2000', true) as milliseconds) "
            f"select {COLUMNS} from patience, {self._sagas} s where {row} for update of s"
        )

    @cached_property
    def _insert(self) -> tuple[str, ...]:
        columns = (
            "saga, key, life, version, stage, entered, state, state_version, undo, due_at, reason, "
            "began_at, changed_at, ended_at"
        )
        values = (
            f"{self._text('saga')}, {self._text('key')}, {self._text('life')}, 1, {self._text('stage')}, 1, "
            f"{self._json('state')}, {self._number('state_version')}, {self._json('undo')}, {self._due}, "
            f"{self._text('reason')}, {self._now}, {self._now}, {self._ended_at('null')}"
        )
        insert = f"insert into {self._sagas} ({columns}) values ({values}) on conflict do nothing returning 1"
        return self._with_step(insert)

    @cached_property
    def _update(self) -> tuple[str, ...]:
        entered = f"{self._number('is_entered')} = 1"
        update = (
            f"update {self._sagas} set version = version + 1, stage = {self._text('stage')}, "
            f"entered = case when {entered} then version + 1 else entered end, state = {self._json('state')}, "
            f"state_version = {self._number('state_version')}, undo = {self._json('undo')}, "
            f"due_at = case when {entered} then {self._due} else due_at end, reason = {self._text('reason')}, "
            f"changed_at = {self._now}, ended_at = {self._ended_at('ended_at')} where saga = {self._text('saga')} "
            f"and key = {self._text('key')} and life = {self._text('life')} and version = {self._number('version')} "
            "returning 1"
        )
        return self._with_step(update)

    def _with_step(self, change: str) -> tuple[str, ...]:
        """Return what makes a change and writes its step: in one statement where the dialect has one."""
        if self._is_postgres:
            insert = f"{self._steps_insert} select {self._steps_values} from changed returning 1"
            return (f"with changed as ({change}) {insert}",)
        return (change, f"{self._steps_insert} values ({self._steps_values}) returning 1")

    @cached_property
    def _steps_insert(self) -> str:
        return (
            f"insert into {self._steps} "
            "(saga, key, life, version, event_id, event_type, stage_before, stage, taken, published, note, at)"
        )

    @cached_property
    def _steps_values(self) -> str:
        texts = ("event_id", "event_type", "stage_before", "stage", "taken")
        return (
            f"{self._text('saga')}, {self._text('key')}, {self._text('life')}, {self._number('step_version')}, "
            f"{', '.join(map(self._text, texts))}, {self._json('published')}, {self._text('note')}, {self._now}"
        )

    def _ended_at(self, before: str) -> str:
        return f"case when {self._number('is_ended')} = 1 then coalesce({before}, {self._now}) end"

    def _text(self, name: str) -> str:
        return f"cast(:{name} as text)"

    def _number(self, name: str) -> str:
        return f"cast(:{name} as integer)"

    def _json(self, name: str) -> str:
        return f"cast(:{name} as jsonb)" if self._is_postgres else f":{name}"
