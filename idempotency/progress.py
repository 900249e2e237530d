"""The progress of a followed request, as its board has it."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, TypeAlias

from .board import Entry

ProgressState: TypeAlias = Literal["open", "done", "failed", "unknown"]

_WAITING = ("open", "published", "retrying")


@dataclass(frozen=True, slots=True)
class Retrying:
    """An event that failed and is tried again.

    Attributes:
        queue: The handler's queue.
        attempt: The number of the next attempt.
        again_at: When it is due.
    """

    queue: str
    attempt: int
    again_at: datetime


@dataclass(frozen=True, slots=True)
class Failed:
    """An event that was dead-lettered.

    Attributes:
        queue: The handler's queue.
        reason: Why: the reason of its dead letter.
        event_id: Its id.
    """

    queue: str
    reason: str
    event_id: str


@dataclass(frozen=True, slots=True)
class Later:
    """A delayed event that is not due yet.

    Attributes:
        type: Its type.
        time: When it is due.
    """

    type: str
    time: datetime


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a request: of its event, and of all that their handlers published, in every listening queue.

    Attributes:
        state: `done`: everything is handled. `open`: something is still to be handled. `failed`: nothing is to be
            handled, and something was dead-lettered. `unknown`: the request is not followed, or was too long ago, or
            Redis was unavailable, or not everything it caused is known.
        open: How many events are to be handled, each in each queue, those that are retried or delayed among them.
        handled: How many were.
        retrying: Those that failed and are tried again.
        failed: Those that were dead-lettered.
        later: Delayed events that are not due yet.
    """

    state: ProgressState
    open: int = 0
    handled: int = 0
    retrying: tuple[Retrying, ...] = ()
    failed: tuple[Failed, ...] = ()
    later: tuple[Later, ...] = ()

    @property
    def done(self) -> bool:
        """Whether everything is handled."""
        return self.state == "done"


def progress_of(entries: Iterable[Entry], now: float) -> Progress:
    """Return what a board comes to. `now` is in seconds since 1970."""
    entries = sorted(entries, key=lambda entry: entry.field)
    counts = {state: sum(entry.state == state for entry in entries) for state in (*_WAITING, "handled", "lost")}
    waiting = sum(counts[state] for state in _WAITING)
    failed = tuple(Failed(e.queue, e.detail, e.event_id) for e in entries if e.state == "failed")
    return Progress(
        _state(counts, waiting, has_failed=bool(failed)),
        waiting,
        counts["handled"],
        tuple(Retrying(e.queue, int(e.detail or 1), _time(e.at)) for e in entries if e.state == "retrying"),
        failed,
        tuple(Later(e.event_type, _time(e.at)) for e in entries if e.state == "open" and (e.at or 0.0) > now),
    )


def _state(counts: dict[str, int], waiting: int, *, has_failed: bool) -> ProgressState:
    if counts["lost"] or not (waiting or has_failed or counts["handled"]):
        return "unknown"
    if waiting:
        return "open"
    return "failed" if has_failed else "done"


def _time(at: float | None) -> datetime:
    return datetime.fromtimestamp(at or 0.0, UTC)
