"""How a delivery can end: what happened (outcomes) and what is done about it (decisions). Closed unions of values."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

Reason: TypeAlias = Literal[
    "exhausted",
    "refused",
    "unreadable",
    "unknown-type",
    "unsupported-version",
    "expired",
    "too-large",
    "crashed",
    "fingerprint-mismatch",
]
"""Why a message was dead-lettered: the `holdfast-reason` header."""


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The handler returned, and the events it published are confirmed."""

    published: int = 0


@dataclass(frozen=True, slots=True)
class AlreadyDone:
    """It was handled before: it came twice, or only its ack was lost."""


@dataclass(frozen=True, slots=True)
class HeldElsewhere:
    """Another delivery of it is being handled. `waited`: the seconds it has waited so far; what is longer than
    `longest` no handler takes; in `free_in` seconds its claim is free, should its worker be dead."""

    waited: float
    longest: float
    free_in: float


@dataclass(frozen=True, slots=True)
class StoreAway:
    """The claim store is away, and the handler does not run without it."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The handler raised. `after` is set where it said when to try again (`RetryLater`)."""

    error: BaseException
    after: float | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """It must not be tried again: the handler raised `Reject`, or the message cannot become an event."""

    error: BaseException
    reason: Reason


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The worker is stopping and the handler had not finished."""


Outcome: TypeAlias = Succeeded | AlreadyDone | HeldElsewhere | StoreAway | Failed | Refused | Interrupted


@dataclass(frozen=True, slots=True)
class Ack:
    """Take it off the queue."""

    settled: Literal["handled", "duplicate"]


HANDLED = Ack("handled")
"""What nearly every delivery ends with."""


@dataclass(frozen=True, slots=True)
class Postpone:
    """Publish a copy that comes back after `delay` seconds, then take the original off the queue. A copy that only
    waits has no `error` and spends no attempt."""

    delay: float
    error: BaseException | None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Publish a copy to the dead-letter queue, then take the original off the queue."""

    reason: Reason
    error: BaseException


@dataclass(frozen=True, slots=True)
class GiveBack:
    """Return it to the queue; another worker takes it. Spends no attempt."""


Decision: TypeAlias = Ack | Postpone | DeadLetter | GiveBack
