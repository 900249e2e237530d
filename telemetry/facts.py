"""What happens, as values. The runtime emits each fact once; log lines, metrics and traces derive from it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from ..events import Metadata

Role: TypeAlias = Literal["consume", "publish"]
SettledAs: TypeAlias = Literal["handled", "duplicate", "postponed", "dead_lettered", "given_back"]
ClaimResult: TypeAlias = Literal["acquired", "duplicate", "busy", "mismatch", "crashed", "unprotected", "unavailable"]
CompletionResult: TypeAlias = Literal["recorded", "fenced", "absent", "unrecorded"]
PublishResult: TypeAlias = Literal[
    "confirmed", "unroutable", "refused", "timeout", "not_connected", "too_large", "failed"
]


@dataclass(frozen=True, slots=True)
class Received:
    """The broker delivered a message. One value for each queue, emitted again for each message."""

    queue: str


@dataclass(frozen=True, slots=True)
class Began:
    """A delivery took a slot: its handling begins. One value for each queue."""

    queue: str


@dataclass(frozen=True, slots=True)
class Ended:
    """All that was to be done about a delivery is done, or was given up. One value for each queue."""

    queue: str


@dataclass(slots=True)
class Settled:
    """One delivery reached its end. Exactly one of these per delivery taken; seconds are monotonic.

    `claim` is None where the handler is not idempotent, or the event never came to be claimed. `completion` tells
    how the completion went: `fenced`, another worker had taken the event over; `absent`, the store had lost the claim;
    `unrecorded`, the store was away (it is tried on in the background).
    """

    queue: str
    handler: str
    metadata: Metadata
    attempt: int
    outcome: SettledAs
    handler_seconds: float
    claim: ClaimResult | None = None
    claim_seconds: float = 0.0
    completion: CompletionResult | None = None
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
class Published:
    """The broker's word on an event, or that there was none, `seconds` after it was asked. Copies are not events."""

    event_type: str
    outcome: PublishResult
    seconds: float


@dataclass(frozen=True, slots=True)
class HandlerAbandoned:
    """A handler went on after its time-out and cancellation. Its slot stays taken until it returns."""

    queue: str
    handler: str
    event_id: str
    timeout: float


@dataclass(frozen=True, slots=True)
class LeaseTaken:
    """This process, as `owner`, is alive in the claim store."""

    owner: str


@dataclass(frozen=True, slots=True)
class LeaseLost:
    """No heartbeat arrived for most of a lease: what runs may be taken over, and its late completion is fenced."""

    owner: str
    lease: float


@dataclass(frozen=True, slots=True)
class ClaimsLost:
    """The claim store lost keys (flushed, evicted, failed over): events within the window may be handled again."""

    error: str


@dataclass(frozen=True, slots=True)
class ClaimsEndangered:
    """Something found at the start that may make events repeat."""

    finding: str


@dataclass(frozen=True, slots=True)
class ReportLost:
    """The tools for dead letters could not be told of this worker's queues, or of how a replay ended."""

    error: str


@dataclass(frozen=True, slots=True)
class MissingId:
    """A message without an id came: a digest of its body stands for it. Told once for each queue."""

    queue: str
    event_type: str


@dataclass(frozen=True, slots=True)
class CrashSuspected:
    """An event whose last run ended with its process is to run alone; until then nothing new starts here."""

    queue: str
    event_id: str
    crashes: int


@dataclass(frozen=True, slots=True)
class Paused:
    """A queue is not consumed until what is missing is back."""

    queue: str
    reason: str
    error: str


@dataclass(frozen=True, slots=True)
class Resumed:
    queue: str
    reason: str
    seconds: float


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
    url: str
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
class LoopTurned:
    """The event loop came to what was due `lag` seconds after it was. A few times a second."""

    lag: float


@dataclass(frozen=True, slots=True)
class Serving:
    """`/metrics`, `/livez` and `/readyz` are answered below this URL."""

    url: str


@dataclass(frozen=True, slots=True)
class Started:
    """The worker takes what its queues hold from now on. `event_types` are those its handlers are registered for."""

    worker: str
    queues: tuple[str, ...]
    concurrency: int
    event_types: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Draining:
    worker: str
    running: int
    grace: float


@dataclass(frozen=True, slots=True)
class Stopped:
    worker: str
    unfinished: int


@dataclass(frozen=True, slots=True)
class ProcessStarted:
    """One of the processes of `holdfast run --processes`; `number` counts from 1 and stays with its place."""

    number: int
    pid: int


@dataclass(frozen=True, slots=True)
class ProcessDied:
    """A process ended that nobody told to. `how` is its exit code or the name of the signal that ended it. One that
    could not be started has `pid` 0."""

    number: int
    pid: int
    how: str
    again_in: float


Counted: TypeAlias = Received | Began | Ended | Published | LoopTurned
"""Facts that come with every message or several times a second: they are counted, and have no log line."""

Told: TypeAlias = (
    Settled
    | SettlementStale
    | CopyHeld
    | HandlerAbandoned
    | LeaseTaken
    | LeaseLost
    | ClaimsLost
    | ClaimsEndangered
    | ReportLost
    | MissingId
    | CrashSuspected
    | Paused
    | Resumed
    | PipelineFailed
    | Connected
    | Disconnected
    | Attached
    | Detached
    | LoopBlocked
    | Serving
    | Started
    | Draining
    | Stopped
    | ProcessStarted
    | ProcessDied
)
"""Facts with a log line each: docs/operations.md lists them."""

Fact: TypeAlias = Counted | Told
Emit: TypeAlias = Callable[[Fact], None]
