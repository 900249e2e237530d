"""The rows of sagas beside their steps: what is due, what rests where, what was, and what is to be forgotten."""

import json
from dataclasses import dataclass
from functools import cached_property

from ..sql import Row, Steps
from .store import COLUMNS, Sent, Store


@dataclass(frozen=True, slots=True)
class Past:
    """A step that was taken.

    Attributes:
        version: Its number: how many steps the saga had then.
        at: When, in seconds since 1970.
        event_id: The id of the event that was taken.
        event_type: The type of that event.
        stage_before: The stage in which the saga was; None for the first step.
        stage: The stage in which it is since.
        taken: How the event was taken: moved, late, overdue, undone, or by hand.
        published: The ids and types of the events that the step published.
        note: Why the saga compensates, or was moved by hand, where this step began that.
    """

    version: int
    at: float
    event_id: str
    event_type: str
    stage_before: str | None
    stage: str
    taken: str
    published: Sent
    note: str | None


def past_of(row: Row) -> Past:
    """Return a step from what `history` returns."""
    _, version, at, event_id, event_type, before, stage, taken, published, note = row
    return Past(version, at, event_id, event_type, before, stage, taken, json.loads(published), note)


@dataclass(frozen=True)
class Upkeep(Store):
    """The rows of one kind of saga, many at a time. See `Store`."""

    def overdue(self, now: float | None, most: int) -> Steps[list[Row]]:
        """Clear the limits that are over. Returns the key, life, `entered` and stage of each of these sagas."""
        return (yield self._overdue, {"saga": self.saga, "now": now, "most": most})

    def standing(self) -> Steps[list[Row]]:
        """Return the key of each saga with its row."""
        return (yield f"select key, {COLUMNS} from {self._sagas} where saga = :saga", self._own)

    def history(self, key: str | None = None) -> Steps[list[Row]]:
        """Return the steps of a saga, or of all, as `Past` has them, each with its key before it."""
        columns = "event_id, event_type, stage_before, stage, taken, cast(published as text), note"
        select = f"select key, version, {self.statements.seconds('at')}, {columns} from {self._steps}"
        of_key = "" if key is None else " and key = :key"
        params = {"saga": self.saga} if key is None else {"saga": self.saga, "key": key}
        return (yield f"{select} where saga = :saga{of_key} order by key, at, version", params)

    def keys_at(self, stage: str) -> Steps[list[str]]:
        """Return the keys of the sagas that rest in a stage."""
        where = "where saga = :saga and stage = :stage and ended_at is null order by changed_at"
        return [row[0] for row in (yield f"select key from {self._sagas} {where}", self._own | {"stage": stage})]

    def next_due(self) -> Steps[float | None]:
        """Return when the next limit is over, in seconds since 1970."""
        seconds = self.statements.seconds("min(due_at)")
        [(due,)] = yield f"select {seconds} from {self._sagas} where saga = :saga and due_at is not null", self._own
        return None if due is None else float(due)

    def figures(self) -> Steps[list[Row]]:
        """Return each stage in which sagas rest, how many, and the seconds for which the oldest has."""
        age = self.statements.seconds(f"{self.statements.now} - min(changed_at)")
        select = f"select stage, count(*), {age} from {self._sagas} where saga = :saga and ended_at is null"
        return (yield f"{select} group by stage order by stage", self._own)

    def resting(self) -> Steps[list[Row]]:
        """Return each stage and version of the state in which sagas are, and how many are there."""
        select = f"select stage, state_version, count(*) from {self._sagas} where saga = :saga and ended_at is null"
        return (yield f"{select} group by stage, state_version order by stage, state_version", self._own)

    def forget(self, keep: float) -> Steps[int]:
        """Delete sagas that ended more than `keep` seconds ago, a thousand at most. Returns how many. One that a late
        event has locked is left to the next time."""
        is_old = f"where saga = :saga and ended_at < {self.statements.ago('keep')} order by ended_at limit 1000"
        is_old += " for update skip locked" if self.statements.dialect == "postgresql" else ""
        delete = f"delete from {self._sagas} where {self.statements.among(f'from {self._sagas} {is_old}')}"
        ended = yield f"{delete} returning key, life", {"saga": self.saga, "keep": keep}
        if ended:
            keys, lives = (json.dumps(column) for column in zip(*ended, strict=True))
            of_those = f"key in {self._texts('keys')} and life in {self._texts('lives')}"
            params = {"saga": self.saga, "keys": keys, "lives": lives}
            yield f"delete from {self._steps} where saga = :saga and {of_those}", params
        return len(ended)

    @property
    def _own(self) -> dict[str, str]:
        return {"saga": self.saga}

    @cached_property
    def _overdue(self) -> str:
        """In PostgreSQL the rows are chosen once and apart: a plan that chooses them anew for each row never ends. In
        SQLite the change comes first: its driver begins a transaction for no other statement."""
        over = (
            f"select key as over_key from {self._sagas} where saga = :saga and due_at <= (select {self._now}) "
            "order by due_at limit :most"
        )
        change = f"update {self._sagas} set due_at = null"
        where = "where saga = :saga and due_at is not null"
        returning = "returning key, life, entered, stage"
        if not self._is_postgres:
            return f"{change} {where} and key in ({over}) {returning}"
        chosen = f"with over as materialized ({over} for update skip locked)"
        return f"{chosen} {change} from over {where} and key = over_key {returning}"

    def _texts(self, name: str) -> str:
        if self._is_postgres:
            return f"(select json_array_elements_text(cast(:{name} as json)))"
        return f"(select value from json_each(:{name}))"
