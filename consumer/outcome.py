"""How a delivery can end: what happened (outcomes) and what is done about it (decisions). Closed unions of values."""

from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

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
    "unexpected",
]
"""Why a message was dead-lettered: the `holdfast-reason` header."""

Raised: TypeAlias = Any
"""An exception of any kind. mypyc compiles no fields of type `BaseException`."""


@dataclass(slots=True, init=False)
class Ready:
    """The event is read, and claimed if it has to be. `crashes`: how many processes died while it ran."""

    event: Any
    crashes: int

    def __init__(self, event: Any, crashes: int = 0) -> None:
        self.event, self.crashes = event, crashes


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The handler returned, and the events it published are confirmed."""

    published: int = 0


@dataclass(frozen=True, slots=True)
class AlreadyDone:
    """The event was handled before: it came twice, or only its ack was lost."""


@dataclass(frozen=True, slots=True)
class HeldElsewhere:
    """Another delivery of the event is being handled. If its worker is dead, the claim is free in `free_in` seconds."""

    free_in: float


@dataclass(frozen=True, slots=True)
class Early:
    """A saga takes the event only later (`TooEarly`). It waits for at most `patience` seconds in all; then it is a dead
    letter, `unexpected`, with `error` as its cause."""

    error: Raised
    patience: float


@dataclass(frozen=True, slots=True)
class ClaimsUnavailable:
    """The claim store or the handler's database is unavailable, and the handler does not run without it."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The handler raised. `after`: the seconds it asked for (`RetryLater`)."""

    error: Raised
    after: float | None = None


@dataclass(frozen=True, slots=True)
class Abandoned:
    """The handler goes on after its time-out and cancellation. Another run now would run next to it."""

    error: Raised


@dataclass(frozen=True, slots=True)
class Unpublished:
    """The handler returned, and the broker did not accept an event it published."""

    error: Raised


@dataclass(frozen=True, slots=True)
class Refused:
    """The event must not be tried again: the handler raised `Reject`, or the message cannot become an event."""

    error: Raised
    reason: Reason


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The worker is stopping and the handler had not finished."""


Outcome: TypeAlias = (
    Ready
    | Succeeded
    | AlreadyDone
    | HeldElsewhere
    | Early
    | ClaimsUnavailable
    | Failed
    | Abandoned
    | Unpublished
    | Refused
    | Interrupted
)


class Ended(BaseException):
    """Carries the outcome of a run that ended inside the middleware, which must not take it for a failure."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(f"the handler's run ended: {outcome}")
        self.outcome = outcome


@dataclass(frozen=True, slots=True)
class RunHandler:
    """Run the handler now, in the slot the delivery has."""


@dataclass(frozen=True, slots=True)
class Ack:
    """Take the message off the queue."""

    settled: Literal["handled", "duplicate"]


@dataclass(frozen=True, slots=True)
class Postpone:
    """Publish a copy that comes back after `delay` seconds, then take the original off the queue. A copy that only
    waits has no `error` and spends no attempt."""

    delay: float
    error: Raised


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Publish a copy to the dead-letter queue, then take the original off the queue."""

    reason: Reason
    error: Raised


@dataclass(frozen=True, slots=True)
class GiveBack:
    """Return the message to the queue; another worker takes it. Spends no attempt."""


Ending: TypeAlias = Ack | Postpone | DeadLetter | GiveBack
Decision: TypeAlias = RunHandler | Ending

RUN: Final = RunHandler()
HANDLED: Final = Ack("handled")
DUPLICATE: Final = Ack("duplicate")
GIVE_BACK: Final = GiveBack()
