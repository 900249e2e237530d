"""What to do about an outcome. Pure: no clock, no broker, no luck of its own."""

from typing import assert_never

from ..events import HoldfastError
from .outcome import (
    HANDLED,
    Ack,
    AlreadyDone,
    DeadLetter,
    Decision,
    Failed,
    GiveBack,
    HeldElsewhere,
    Interrupted,
    Outcome,
    Postpone,
    Refused,
    StoreAway,
    Succeeded,
)
from .retry import Retry


class Expired(HoldfastError):
    """The event is older than its policy's `max_age`."""


class HeldTooLong(HoldfastError):
    """Another worker held the event longer than any handler may take."""


_FIRST_WAIT, _MARGIN = 1.0, 0.1


def decide(outcome: Outcome, *, attempt: int, age: float, policy: Retry, luck: float, longest: float) -> Decision:
    """The decision for an outcome of attempt `attempt` of an event `age` seconds old.

    `luck`, 0 to 1, is where jitter falls; `longest` caps the delay in seconds.
    """
    match outcome:
        case Succeeded():
            return HANDLED
        case AlreadyDone():
            return Ack("duplicate")
        case Interrupted() | StoreAway():
            return GiveBack()
        case HeldElsewhere(waited, most, free_in) if waited <= most:
            return Postpone(min(max(_FIRST_WAIT, waited / 2), free_in + _MARGIN, longest), None)
        case HeldElsewhere(waited, most, _):
            error = HeldTooLong(f"another worker has held this event for {waited:.0f} s; a handler has {most:.0f} s")
            return _after_failure(error, policy.delay(attempt, luck), attempt, age, policy, luck, longest)
        case Refused(error, reason):
            return DeadLetter(reason, error)
        case Failed(error, after):
            return _after_failure(error, after, attempt, age, policy, luck, longest)
        case _:
            assert_never(outcome)


def _after_failure(
    error: BaseException, after: float | None, attempt: int, age: float, policy: Retry, luck: float, longest: float
) -> Decision:
    if after is None and not policy.retries(error):
        return DeadLetter("refused", error)
    if attempt >= policy.attempts:
        return DeadLetter("exhausted", error)
    delay = min(after if after is not None else policy.delay(attempt, luck), longest)
    if policy.max_age is not None and age + delay > policy.max_age:
        return DeadLetter("expired", error)
    return Postpone(delay, error)
