"""What happens, as values. The runtime emits each fact once; log lines, metrics and traces derive from it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from ..events import Metadata

Role: TypeAlias = Literal["consume", "publish"]
SettledAs: TypeAlias = Literal["handled", "duplicate", "postponed", "dead_lettered", "given_back"]


@dataclass(frozen=True, slots=True)
class Settled:
    """One delivery reached its end. Exactly one of these per delivery taken; seconds are monotonic."""

    queue: str
    handler: str
    metadata: Metadata
    attempt: int
    outcome: SettledAs
    handler_seconds: float
    published: int = 0
    delay: float | None = None
    reason: str | None = None
    error: str | None = None
    error_type: str | None = None
    traceback: str | None = None


@dataclass(frozen=True, slots=True)
class SettlementStale:
    """The connection a delivery came on is gone: it is not acked, and its redelivery is acked unrun."""

    queue: str
    event_id: str


@dataclass(frozen=True, slots=True)
class CopyHeld:
    """A copy (retry or dead letter) could not be published; the original is kept and the copy tried again."""

    queue: str
    event_id: str
    error: str
    again_in: float


@dataclass(frozen=True, slots=True)
class HandlerAbandoned:
    """A handler went on after its time-out and cancellation. Its slot stays taken until it returns."""

    queue: str
    handler: str
    event_id: str
    timeout: float


@dataclass(frozen=True, slots=True)
class PipelineFailed:
    """A fault of Holdfast itself: the delivery could not be carried to an end and is given back after a pause."""

    queue: str
    event_id: str
    error: BaseException
    again_in: float


@dataclass(frozen=True, slots=True)
class Connected:
    role: Role
    url: str
    server: str


@dataclass(frozen=True, slots=True)
class Disconnected:
    role: Role
    error: str
    again_in: float


@dataclass(frozen=True, slots=True)
class Attached:
    queue: str
    generation: int


@dataclass(frozen=True, slots=True)
class Detached:
    queue: str
    error: str
    again_in: float


@dataclass(frozen=True, slots=True)
class LoopBlocked:
    """The event loop did not turn for `seconds`; `stack` is where it stood, `task` what it was running."""

    seconds: float
    task: str
    stack: str


@dataclass(frozen=True, slots=True)
class Started:
    worker: str
    queues: tuple[str, ...]
    concurrency: int


@dataclass(frozen=True, slots=True)
class Draining:
    worker: str
    running: int
    grace: float


@dataclass(frozen=True, slots=True)
class Stopped:
    worker: str
    unfinished: int


Fact: TypeAlias = (
    Settled
    | SettlementStale
    | CopyHeld
    | HandlerAbandoned
    | PipelineFailed
    | Connected
    | Disconnected
    | Attached
    | Detached
    | LoopBlocked
    | Started
    | Draining
    | Stopped
)
Emit: TypeAlias = Callable[[Fact], None]
