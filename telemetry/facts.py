"""What happens, as values. The runtime emits each fact once; log lines, metrics and traces derive from it.

A fact is described here alone: its class names its log line and level, its fields are those of the line, and the first
paragraph of its docstring is its row in docs/operations.md.
"""

from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import fields as fields_of
from typing import Any, ClassVar, Literal, TypeAlias, dataclass_transform

from ..events import Metadata
from .queue_figures import QueueFigures

Level: TypeAlias = Literal["debug", "info", "warning", "error", "critical"]
Role: TypeAlias = Literal["consume", "publish"]
SettledAs: TypeAlias = Literal["handled", "duplicate", "postponed", "dead_lettered", "given_back"]
ClaimResult: TypeAlias = Literal["acquired", "duplicate", "busy", "mismatch", "crashed", "unprotected", "unavailable"]
InboxResult: TypeAlias = Literal["fresh", "duplicate", "busy", "mismatch"]
CompletionResult: TypeAlias = Literal["recorded", "fenced", "absent", "unrecorded"]
Lasting: TypeAlias = Literal[
    "connection", "consumer", "consumers", "listeners", "redeclaration", "registry", "relay", "unrouted", "recovery",
    "heartbeat", "projection", "sagas", "watchdog", "probes", "processes", "reports",
]  # fmt: skip
"""The tasks and threads that last as long as their worker."""

PublishResult: TypeAlias = Literal[
    "confirmed", "dropped", "unroutable", "refused", "timeout", "not_connected", "too_large", "failed"
]

_NEVER_RUN = frozenset({"unreadable", "unknown-type", "unsupported-version", "too-large"})


@dataclass_transform(frozen_default=True)
class Fact:
    """Something that happened: a dataclass, frozen unless one is made for every message, which would take three times
    as long. `log` is the name of its log line, empty for a fact that is only counted.
    """

    log: ClassVar[str] = ""
    level: ClassVar[Level] = "info"

    def __init_subclass__(cls, *, log: str = "", level: Level = "info", frozen: bool = True) -> None:
        cls.log, cls.level = log, level  # mypyc ignores arguments of a class: this module stays as it is
        dataclass(frozen=frozen)(cls)

    def severity(self) -> Level:
        """Return the level of this fact's line."""
        return self.level

    def fields(self) -> dict[str, Any]:
        """Return the fields of this fact's line: seconds to the millisecond, an exception as `exc_info`."""
        line: dict[str, Any] = {}
        for field in fields_of(self):  # type: ignore[arg-type]  # every fact is a dataclass
            item = getattr(self, field.name)
            name = "exc_info" if isinstance(item, BaseException) else field.name
            line[name] = round(item, 3) if isinstance(item, float) else item
        return line


Emit: TypeAlias = Callable[[Fact], None]


class Settled(Fact, log="delivery.settled", frozen=False):
    """A delivery reached its end: `outcome` handled, duplicate, given_back (info), postponed (warning), dead_lettered
    (error); with `error`, `error_type`, `reason`, `delay`, `seconds`. A `completion` other than recorded is a warning:
    `fenced` (another worker took the event over), `absent` (the claim store lost the claim), `unrecorded` (the store
    was unavailable, and the completion is retried). At most `HOLDFAST_LOG__SUCCESSES` successes a second have a line;
    the next line has the number of those left out as `left_out`.

    There is exactly one per delivery taken; seconds are monotonic. `claim` is None where the handler is not idempotent,
    or the event was never claimed.
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

    def severity(self) -> Level:
        """Return `error` for a dead letter, `warning` for a failure or an event that may repeat, else `info`."""
        if self.outcome == "dead_lettered":
            return "error"
        if self.claim == "busy":
            return "info"
        return "warning" if self.outcome == "postponed" or self.completion not in (None, "recorded") else "info"

    def fields(self) -> dict[str, Any]:
        """Return the fields of this fact's line, without those that hold nothing unusual."""
        line: dict[str, Any] = {
            "outcome": self.outcome,
            "event_id": self.metadata.event_id,
            "event_type": self.metadata.event_type,
            "correlation_id": self.metadata.correlation_id,
            "causation_id": self.metadata.causation_id,
            "queue": self.queue,
            "handler": self.handler,
            "attempt": self.attempt,
            "seconds": round(self.handler_seconds, 6),
        }
        for name in ("published", "delay", "reason", "error", "error_type"):
            if item := getattr(self, name):
                line[name] = round(item, 3) if name == "delay" else item
        if self.claim not in (None, "acquired"):
            line["claim"] = self.claim
        if self.completion not in (None, "recorded"):
            line["completion"] = self.completion
        if self.traceback and self.reason not in _NEVER_RUN:  # no code of the user's is in that traceback
            line["exception"] = self.traceback
        return line


class SettlementStale(Fact, log="delivery.stale", level="warning"):
    """The connection of the delivery is lost, so it cannot be acked; its redelivery is acked unrun."""

    queue: str
    event_id: str


class CopyHeld(Fact, log="copy.held", level="error"):
    """A retry or dead letter could not be published; the original is kept, and the copy is published again in
    `again_in` seconds."""

    queue: str
    event_id: str
    error: str
    again_in: float


class HandlerAbandoned(Fact, log="handler.abandoned", level="error"):
    """A handler went on after its time-out and its cancellation. Its slot stays taken until it returns."""

    queue: str
    handler: str
    event_id: str
    timeout: float


class MissingId(Fact, log="event.without_id", level="warning"):
    """A message brought no id, so its event is not claimed: if it comes twice, it is handled twice. Logged once per
    queue; `holdfast_messages_without_id_total` counts them. `HOLDFAST_WORKER__ID_HEADERS` names headers with ids.
    """

    queue: str
    event_type: str


class IdGuessed(Fact):
    """A message brought no id. Emitted for each."""

    queue: str


class CrashSuspected(Fact, log="event.suspected", level="warning"):
    """The last run of this event ended with its process: it runs alone now, and nothing new starts until then."""

    queue: str
    event_id: str
    crashes: int


class Paused(Fact, log="queue.paused", level="error"):
    """The claim store, or the handler's database, is unavailable, and the queue is not consumed until it is back."""

    queue: str
    reason: str
    error: str


class Resumed(Fact, log="queue.resumed"):
    """The claim store, or the handler's database, is back after `seconds`, and the queue is consumed again."""

    queue: str
    reason: str
    seconds: float


class LeaseTaken(Fact, log="lease.taken", level="debug"):
    """This process is alive in the claim store, as `owner`."""

    owner: str


class LeaseLost(Fact, log="lease.lost", level="warning"):
    """No heartbeat arrived for most of a lease: what runs may be taken over, and its late completion is fenced."""

    owner: str
    lease: float


class ClaimsLost(Fact, log="claims.lost", level="error"):
    """The claim store lost keys (flushed, evicted, failed over): events within the window may be handled again."""

    error: str


class ClaimsEndangered(Fact, log="claims.endangered", level="warning"):
    """A check at the start reports something that may make events repeat."""

    finding: str


class ReportLost(Fact, log="report.lost", level="warning"):
    """The tools for dead letters could not be informed of this worker's queues, or of how a replay ended."""

    error: str


class Unfollowed(Fact, log="request.unfollowed", level="warning"):
    """The claim store was unavailable when an event of a followed request was published, or (with the event handled)
    what its handler published: it goes on, and the progress of the request is `unknown`."""

    event_type: str
    event_id: str
    request: str
    error: str


class PipelineFailed(Fact, log="pipeline.failed", level="critical"):
    """A fault of Holdfast itself: the delivery goes back to its queue after a pause of `again_in` seconds."""

    queue: str
    event_id: str
    error: BaseException
    again_in: float


class TopologyUnverified(Fact, log="topology.unverified", level="warning"):
    """With `HOLDFAST_BROKER__TOPOLOGY=verify`: the bindings could not be read, and one may be missing."""

    error: str


class Unrouted(Fact, log="messages.unrouted", level="error"):
    """Retries or delayed events left the delay ladder and no queue took them: `messages` rest in `holdfast.unrouted`.

    Emitted whenever their number has changed; without any it has no line."""

    messages: int

    def severity(self) -> Level:
        """Return `error`, or `info` once none is left."""
        return self.level if self.messages else "info"


class TaskFailed(Fact, log="task.failed", level="critical"):
    """A `task` that lasts as long as the worker met an error that Holdfast does not know; it goes on in `again_in`
    seconds."""

    task: Lasting
    error: BaseException
    again_in: float


class Connected(Fact, log="broker.connected"):
    """A connection is up, with its `role` and `server`."""

    role: Role
    url: str
    server: str


class Disconnected(Fact, log="broker.disconnected", level="warning"):
    """A connection is lost, or could not be made; it is tried again in `again_in` seconds."""

    role: Role
    url: str
    error: str
    again_in: float


class Blocked(Fact, log="broker.blocked", level="error"):
    """An alarm of the broker (`reason`: memory or disk) blocks the connection of this `role`: publishes, retries and
    dead letters wait."""

    role: Role
    url: str
    reason: str


class Unblocked(Fact, log="broker.unblocked"):
    """The alarm is over, and what waited is published."""

    role: Role
    url: str


class Attached(Fact, log="consumer.attached"):
    """A queue is consumed."""

    queue: str
    generation: int


class Detached(Fact, log="consumer.detached", level="warning"):
    """A queue is not consumed any more; it is tried again in `again_in` seconds."""

    queue: str
    error: str
    again_in: float


class PublishingHeld(Fact, log="publishing.held", level="error"):
    """Connected, but no channel can be opened to publish to `target`; it is tried again until one can be."""

    target: str
    error: str


class PublishingResumed(Fact, log="publishing.resumed"):
    """A channel to publish to `target` is open again, or nobody waits for it any more."""

    target: str


class LoopBlocked(Fact, log="loop.blocked", level="error"):
    """The event loop stood still for `seconds`: `handler` and `event_id` say for which event, `stack` says where, and
    `task` in what; no handler is named where other code blocks it."""

    seconds: float
    task: str
    stack: str
    handler: str | None = None
    event_id: str | None = None


class Serving(Fact, log="http.serving"):
    """Metrics and probes are served at `url`."""

    url: str


class Started(Fact, log="worker.started"):
    """The worker takes messages from its queues.

    `event_types` are those its handlers are registered for.
    """

    worker: str
    queues: tuple[str, ...]
    concurrency: int
    event_types: tuple[str, ...] = ()

    def fields(self) -> dict[str, Any]:
        """Return the fields of this fact's line; the types are left out, of which there may be many."""
        return {"worker": self.worker, "queues": ", ".join(self.queues), "concurrency": self.concurrency}


class Draining(Fact, log="worker.draining"):
    """The worker was asked to stop; `running` deliveries have `grace` seconds to end."""

    worker: str
    running: int
    grace: float


class Stopped(Fact, log="worker.stopped"):
    """The worker stopped: all is settled, but for `unfinished` deliveries that were given back."""

    worker: str
    unfinished: int


class WorkerFailed(Fact, log="worker.failed", level="critical"):
    """Your lifespan raised, so the worker did not run."""

    worker: str
    error: BaseException


class ProcessStarted(Fact, log="process.started"):
    """With `--processes`: process `number`, counted from 1, runs as `pid`."""

    number: int
    pid: int


class ProcessDied(Fact, log="process.died", level="error"):
    """A process ended by itself; `how` is its exit code or signal; it is replaced in `again_in` seconds.

    Where the process says why it could not start, that is part of `how`. A process that could not be started has `pid`
    0. One that ends while all drain is not replaced.
    """

    number: int
    pid: int
    how: str
    again_in: float | None


class ListenerFailed(Fact, log="listener.failed", level="error"):
    """A listener of yours raised at a `fact`; nothing else is affected."""

    fact: str
    error: BaseException


class OutboxHeld(Fact, log="outbox.held", level="error"):
    """The broker refused a committed event. It is tried again in `again_in` seconds; the later ones of its key wait for
    it, and no others."""

    database: str
    key: str
    event_id: str
    error: str
    again_in: float


class OutboxUnrouted(Fact, log="outbox.unrouted", level="warning"):
    """No queue is bound for a committed event: it rests in `holdfast.unrouted`."""

    database: str
    event_id: str
    event_type: str


class OutboxDeaf(Fact, log="outbox.deaf", level="warning"):
    """A notification of our own did not come back: a pooler is in between. The relay looks for events every
    `HOLDFAST_SQL__POLL` seconds. `HOLDFAST_SQL__LISTEN_URL` is for a direct connection, on which it hears."""

    database: str


class RelayStarted(Fact, log="relay.started"):
    """A relay by itself sends the committed events of a database."""

    database: str


class RelayJoined(Fact, log="relay.joined", level="debug"):
    """A relay of this process takes leases of shards, under `token`."""

    database: str
    token: str


class RelayFailed(Fact, log="relay.failed", level="error"):
    """The relay cannot use its database; it tries again in `again_in` seconds. Committed events wait."""

    database: str
    error: str
    again_in: float


class InboxSwept(Fact, log="inbox.swept"):
    """Rows of the inbox past their window are deleted."""

    database: str
    rows: int


class SagaCompensating(Fact, log="saga.compensating", level="warning"):
    """A saga begins to take back what it did, for this `reason`."""

    saga: str
    key: str
    event_id: str
    reason: str | None


class SagaStuck(Fact, log="saga.stuck", level="error"):
    """An event that takes back a step of a saga was not answered in time: `holdfast sagas nudge` or `skip-undo`."""

    saga: str
    key: str
    event_id: str


class SagaLate(Fact, log="saga.late", level="warning"):
    """An event came too late for its saga, which is in this `stage`: it is acked, and written with the saga's steps."""

    saga: str
    key: str
    event_id: str
    event_type: str
    stage: str


class SagasSwept(Fact, log="sagas.swept"):
    """Sagas that ended longer than `HOLDFAST_SQL__SAGA_KEEP` ago are deleted."""

    saga: str
    rows: int


class ProjectionStalled(Fact, log="projection.stalled", level="error"):
    """A projection cannot go on: its function raised for the event at `position`, or its database cannot be used
    (`position` is 0 then). It tries again in `again_in` seconds, and skips nothing."""

    projection: str
    position: int
    event_id: str
    error: str
    again_in: float


class TapeRecorded(Fact):
    """Messages of a stream are committed up to an `offset`, of which `events` were not in the journal."""

    stream: str
    events: int
    offset: int


class TapeRecording(Fact, log="journal.recording"):
    """The messages of a stream after an `offset` are being written into the journal of a database; -1: from the first
    one on."""

    stream: str
    database: str
    offset: int


class TapeGap(Fact, log="journal.gap", level="error"):
    """Messages of a stream were deleted before they were written into the journal: those at the offsets `first` to
    `last`. The retention of the stream is too short for how far the recording is behind."""

    stream: str
    first: int
    last: int


class TapeLate(Fact, log="journal.late", level="warning"):
    """The event that was written into the journal last is older than half of the time that its stream keeps events:
    `seconds`. It is said once a minute."""

    stream: str
    seconds: float


class TapeUnrecorded(Fact, log="journal.unrecorded", level="error"):
    """A message of a stream cannot be kept, and is left out of the journal."""

    stream: str
    offset: int
    error: str


class TapeFailed(Fact, log="journal.failed", level="warning"):
    """A stream cannot be written into the journal now: the broker or the database cannot be used. It goes on where it
    was, and tries again in `again_in` seconds."""

    stream: str
    error: str
    again_in: float


class JournalSwept(Fact, log="journal.swept"):
    """Events that were sent and kept for `HOLDFAST_SQL__KEEP` seconds are deleted."""

    database: str
    rows: int


class TlsUnverified(Fact, log="tls.unverified", level="warning"):
    """`setting` is false: anybody between this process and the server can read and change all that is sent."""

    setting: str


class SettingUnknown(Fact, log="setting.unknown", level="warning"):
    """A `HOLDFAST_` variable is set that no setting has; `setting` names it, and the nearest one."""

    setting: str


class Published(Fact, frozen=False):
    """The broker's answer about an event, or that there was none, `seconds` after the publish. Copies are no events."""

    event_type: str
    outcome: PublishResult
    seconds: float


class Relayed(Fact):
    """A relay has sent a batch of events: the seconds from the writing of each to its confirm."""

    database: str
    seconds: tuple[float, ...]


class OutboxCounted(Fact):
    """How many events of a database wait to be sent (at most 100,001 are counted), for how many seconds the oldest one
    does, how many are held, and how many shards this process sends."""

    database: str
    pending: int
    oldest: float
    held: int
    shards: int


class SagaStepped(Fact):
    """A step of a saga is committed: how the event was `taken`, and which stage that led to."""

    saga: str
    key: str
    event_id: str
    stage_before: str | None
    stage: str
    taken: str
    reason: str | None


class SagasCounted(Fact):
    """How many sagas rest in each stage, and for how many seconds the oldest does."""

    saga: str
    stages: tuple[tuple[str, int, float], ...]


class Projected(Fact):
    """A projection has handled so many events and reached a `position`; it is `lag` seconds behind."""

    projection: str
    events: int
    position: int
    lag: float


class InboxAnswered(Fact):
    """The inbox in the handler's transaction said of an event that it is `fresh`, a `duplicate`, `busy` in another
    transaction, or comes with another payload (`mismatch`)."""

    queue: str
    result: InboxResult


class LoopTurned(Fact):
    """The event loop ran what was due `lag` seconds late. Emitted a few times a second."""

    lag: float


class ConsumerStarted(Fact):
    """A run of a worker is about to consume a queue, and keeps these figures from now on. Once per queue and run."""

    queue: str
    figures: QueueFigures
