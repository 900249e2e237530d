"""What commands and pages show of sagas, read without their classes."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from ..events import ConfigurationError
from ..sql import Statements, Steps
from .upkeep import Upkeep, past_of


@dataclass(frozen=True, slots=True)
class Overview:
    """Where a saga stands: `resting` seconds in its stage, `due_in` seconds until its limit."""

    key: str
    stage: str
    resting: float
    due_in: float | None
    reason: str | None

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)


def read_kinds(statements: Statements) -> Steps[list[tuple[str, str, int, float]]]:
    """Return the name and stage of all sagas that have not ended, how many there are, and how long the oldest rests."""
    age = statements.seconds(f"{statements.now} - min(changed_at)")
    select = f"select saga, stage, count(*), {age} from {statements.table('sagas')} where ended_at is null"
    rows = yield f"{select} group by saga, stage order by saga, stage", {}
    return [(saga, stage, int(count), float(oldest)) for saga, stage, count, oldest in rows]


def read_overview(
    statements: Statements, saga: str, stage: str | None, older: float, limit: int
) -> Steps[list[Overview]]:
    """Return sagas, the oldest first: those in a stage, or all that have not ended."""
    of_stage = "ended_at is null" if stage is None else "stage = :stage"
    params = {"saga": saga, "older": older, "most": limit} | ({} if stage is None else {"stage": stage})
    select = f"select key, {_columns(statements)} from {statements.table('sagas')} where saga = :saga and {of_stage}"
    rows = yield f"{select} and changed_at <= {statements.ago('older')} order by changed_at limit :most", params
    return [Overview(*row) for row in rows]


def read_one(statements: Statements, saga: str, key: str) -> Steps[dict[str, Any]]:
    """Return all that is known of one saga. Raises `ConfigurationError` where there is none."""
    columns = f"{_columns(statements)}, cast(state as text), cast(undo as text)"
    select = f"select {columns} from {statements.table('sagas')} where saga = :saga and key = :key"
    rows = yield select, {"saga": saga, "key": key}
    if not rows:
        raise ConfigurationError(f"there is no saga {saga} {key!r}")
    stage, resting, due_in, reason, state, undo = rows[0]
    steps = yield from Upkeep(statements, saga).history(key)
    return {
        "saga": saga,
        "key": key,
        "stage": stage,
        "resting": resting,
        "due_in": due_in,
        "reason": reason,
        "state": json.loads(state),
        "undo": json.loads(undo),
        "steps": [asdict(past_of(row)) for row in steps],
    }


def _columns(statements: Statements) -> str:
    resting = statements.seconds(f"{statements.now} - changed_at")
    return f"stage, {resting}, {statements.seconds(f'due_at - {statements.now}')}, reason"
