"""A listener that counts: every metric of Holdfast derives from facts. It counts in `SharedFigures`."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

from ..config import VERSION
from ..events import Metadata
from . import facts
from . import families as f
from .facts import Fact, Settled
from .page import Examples, metrics_of
from .queue_figures import QueueFigures
from .shared_figures import OTHER, Labels, Names, Offsets, SharedFigures

if TYPE_CHECKING:
    from prometheus_client import Metric

_LAG_TURNS: Final = 60
_SYSTEM_TIME: Final = partial(datetime.now, UTC)


@dataclass(slots=True)
class Ending:
    """Where the figures stand of one way in which deliveries of a handler end: `counters` are increased by 1 each."""

    counters: tuple[int, ...]
    seconds: int
    age: int | None
    claim_seconds: int | None
    seconds_examples: dict[int, tuple[float, Metadata]]
    age_examples: dict[int, tuple[float, Metadata]]


@dataclass(slots=True)
class Consumer:
    """Figures of a queue, and where they are copied to. `earlier` were received by consumers before this one."""

    figures: QueueFigures
    earlier: float
    received: int
    in_flight: int
    attached: int
    order: tuple[int, ...] = ()

    def copy_to(self, values: "memoryview[float]") -> None:
        """Write the figures as they are now."""
        values[self.received] = self.earlier + self.figures.received
        values[self.in_flight] = float(self.figures.in_flight)
        values[self.attached] = float(self.figures.attached)
        if self.order:
            for offset, value in zip(self.order, self.figures.of_order(), strict=True):
                values[offset] = float(value)


class Metrics:
    """Give it to a worker or a publisher as a listener, and register it with a `prometheus_client` registry where it
    is to appear on a page of your own: `REGISTRY.register(metrics)`. `holdfast run` has one of its own.

    One serves the facts of one event loop. `figures` is where it counts, `now` the time by which events age. What a
    consumer counts by itself (`ConsumerStarted`) is copied to `figures` by `refresh`: with each `collect`, and when the
    worker has stopped.
    """

    def __init__(self, figures: SharedFigures | None = None, *, now: Callable[[], datetime] = _SYSTEM_TIME) -> None:
        self.figures = figures or SharedFigures()
        self._now = now
        self._values = self.figures.values
        self._at = {family: Offsets(self.figures, family) for family in f.FAMILIES}
        self._consumers: dict[str, Consumer] = {}
        self._copying = Lock()
        self._endings: dict[tuple[str | None, ...], Ending] = {}
        self._examples: Examples = {}
        self._registered: frozenset[str] = frozenset()
        self._published, self._errors = Names(), Names()
        self._connections: set[str] = set()
        self._lags: deque[float] = deque(maxlen=_LAG_TURNS)
        self._listen: dict[type[Fact], Callable[[Any], None]] = {
            facts.ConsumerStarted: self._consumer_started,
            Settled: self._settled,
            facts.IdGuessed: self._id_guessed,
            facts.Published: self._publish,
            facts.Unfollowed: self._unfollowed,
            facts.Connected: self._connected,
            facts.Disconnected: self._disconnected,
            facts.Paused: self._paused,
            facts.Resumed: self._resumed,
            facts.InboxAnswered: self._inbox_answered,
            facts.OutboxCounted: self._outbox_counted,
            facts.Relayed: self._relayed,
            facts.SagasCounted: self._sagas_counted,
            facts.Projected: self._projected,
            facts.LoopTurned: self._turned,
            facts.Started: self._started,
            facts.Stopped: self._stopped,
            facts.ProcessStarted: self._process_started,
            facts.ProcessDied: self._process_died,
            facts.Unrouted: self._unrouted,
            facts.TaskFailed: self._task_failed,
        }
        self._set(f.BUILD_INFO, VERSION, 1.0)

    def listener_for(self, kind: type[Fact]) -> Callable[[Any], None] | None:
        """Return what is called with facts of this kind, None for those that are not counted."""
        return self._listen.get(kind)

    def __call__(self, fact: Fact) -> None:
        listen = self._listen.get(type(fact))
        if listen is not None:
            listen(fact)

    def collect(self) -> "Iterator[Metric]":
        """Return what a `prometheus_client` registry asks of a collector. Any thread may call it."""
        self.refresh()
        return metrics_of([self.figures.memory], self._examples)

    def refresh(self) -> None:
        """Copy the figures of the consumers. Any thread may call it."""
        with self._copying:
            for consumer in self._consumers.values():
                consumer.copy_to(self._values)

    def _consumer_started(self, fact: facts.ConsumerStarted) -> None:
        """From here on each series of the queue is there, so that a rate over it sees its first message."""
        self.refresh()
        self._add(f.WITHOUT_ID, (fact.queue,))
        received, *gauges = (self._at[family][fact.queue] for family in (f.RECEIVED, f.IN_FLIGHT, f.ATTACHED))
        families = (f.PARKED, f.HELD_KEYS, f.PARTITIONS_OWNED, f.LANE_WAIT) if fact.figures.partitions else ()
        order = tuple(self._at[family][fact.queue] for family in families)
        in_flight, attached = gauges
        with self._copying:
            self._consumers[fact.queue] = Consumer(
                fact.figures, self._values[received], received, in_flight, attached, order
            )

    def _settled(self, fact: Settled) -> None:
        """Count one delivery: what is looked up for it is looked up once for each way to end."""
        values, metadata = self._values, fact.metadata
        way = (fact.queue, fact.handler, metadata.event_type, fact.outcome, fact.claim, fact.completion)
        ending = self._endings.get(way) or self._ending(fact, way)
        for offset in ending.counters:
            values[offset] += 1
        if seconds := fact.handler_seconds:
            ending.seconds_examples[self._observe(f.SECONDS, ending.seconds, seconds)] = (seconds, metadata)
        if ending.age is not None:
            age = max((self._now() - metadata.time).total_seconds(), 0.0)
            ending.age_examples[self._observe(f.AGES, ending.age, age)] = (age, metadata)
        if ending.claim_seconds is not None:
            self._observe(f.TRIPS, ending.claim_seconds, fact.claim_seconds)
        if fact.outcome == "postponed" and fact.error_type is not None:
            values[self._at[f.RETRIES][fact.queue, fact.handler, self._errors.bounded(fact.error_type)]] += 1
        elif fact.outcome == "dead_lettered":
            values[self._at[f.DEAD_LETTERS][fact.queue, fact.handler, str(fact.reason)]] += 1

    def _id_guessed(self, fact: facts.IdGuessed) -> None:
        self._add(f.WITHOUT_ID, (fact.queue,), 1.0)

    def _ending(self, fact: Settled, way: tuple[str | None, ...]) -> Ending:
        at, event_type, handler = self._at, fact.metadata.event_type, (fact.queue, fact.handler)
        is_registered = event_type in self._registered
        counters = [at[f.SETTLED][(*handler, event_type if is_registered else OTHER, fact.outcome)]]
        if fact.claim is not None:
            counters.append(at[f.CLAIMS][fact.queue, fact.claim])
        if fact.completion is not None:
            counters.append(at[f.COMPLETIONS][fact.queue, fact.completion])
        ending = Ending(
            tuple(counters),
            at[f.HANDLER_SECONDS][handler],
            at[f.EVENT_AGE][handler] if fact.outcome in ("handled", "dead_lettered") else None,
            at[f.CLAIM_SECONDS][()] if fact.claim is not None else None,
            self._examples.setdefault((f.HANDLER_SECONDS.name, *handler), {}),
            self._examples.setdefault((f.EVENT_AGE.name, *handler), {}),
        )
        if is_registered:  # of others a sender could invent any number
            self._endings[way] = ending
        return ending

    def _publish(self, fact: facts.Published) -> None:
        known = fact.event_type in self._registered
        event_type = fact.event_type if known else self._published.bounded(fact.event_type)
        self._values[self._at[f.PUBLISHED][event_type, fact.outcome]] += 1
        self._observe(f.TRIPS, self._at[f.PUBLISH_SECONDS][()], fact.seconds)

    def _unfollowed(self, fact: facts.Unfollowed) -> None:
        known = fact.event_type in self._registered
        self._add(f.UNFOLLOWED, (fact.event_type if known else self._published.bounded(fact.event_type),), 1.0)

    def _inbox_answered(self, fact: facts.InboxAnswered) -> None:
        self._values[self._at[f.INBOX][fact.queue, fact.result]] += 1

    def _outbox_counted(self, fact: facts.OutboxCounted) -> None:
        self._set(f.OUTBOX_PENDING, (fact.database,), float(fact.pending))
        self._set(f.OUTBOX_OLDEST, (fact.database,), fact.oldest)
        self._set(f.OUTBOX_HELD, (fact.database,), float(fact.held))
        self._set(f.OUTBOX_SHARDS, (fact.database,), float(fact.shards))

    def _projected(self, fact: facts.Projected) -> None:
        self._set(f.PROJECTION_LAG, (fact.projection,), fact.lag)

    def _relayed(self, fact: facts.Relayed) -> None:
        offset = self._at[f.OUTBOX_SECONDS][fact.database,]
        for seconds in fact.seconds:
            self._observe(f.SECONDS, offset, max(seconds, 0.0))

    def _sagas_counted(self, fact: facts.SagasCounted) -> None:
        for stage, count, oldest in fact.stages:
            self._set(f.SAGAS, (fact.saga, stage), float(count))
            self._set(f.SAGA_OLDEST, (fact.saga, stage), oldest)

    def _connected(self, fact: facts.Connected) -> None:
        if fact.role in self._connections:
            self._values[self._at[f.RECONNECTS][fact.role]] += 1
        self._connections.add(fact.role)
        self._set(f.CONNECTED, fact.role, 1.0)
        self._set(f.BROKER_INFO, (fact.role, unquote(urlsplit(fact.url).path[1:]) or "/"), 1.0)

    def _disconnected(self, fact: facts.Disconnected) -> None:
        self._set(f.CONNECTED, fact.role, 0.0)

    def _paused(self, fact: facts.Paused) -> None:
        self._set(f.PAUSED, (fact.queue, fact.reason), 1.0)

    def _resumed(self, fact: facts.Resumed) -> None:
        self._set(f.PAUSED, (fact.queue, fact.reason), 0.0)

    def _turned(self, fact: facts.LoopTurned) -> None:
        self._lags.append(fact.lag)
        self._set(f.LOOP_LAG, (), max(self._lags))

    def _started(self, fact: facts.Started) -> None:
        self._registered |= frozenset(fact.event_types)
        self._add(f.UNROUTED, ())
        for role in ("consume", "publish") if fact.queues else ("publish",):
            self._add(f.CONNECTED, role)
            self._add(f.RECONNECTS, role)

    def _stopped(self, fact: facts.Stopped) -> None:
        self.refresh()
        self._zero(f.CONNECTED)
        self._zero(f.PAUSED)

    def _unrouted(self, fact: facts.Unrouted) -> None:
        self._set(f.UNROUTED, (), float(fact.messages))

    def _task_failed(self, fact: facts.TaskFailed) -> None:
        self._add(f.TASK_FAILURES, fact.task, 1.0)

    def _process_started(self, fact: facts.ProcessStarted) -> None:
        self._add(f.PROCESSES, (), 1.0)
        self._add(f.PROCESS_DEATHS, ())

    def _process_died(self, fact: facts.ProcessDied) -> None:
        self._add(f.PROCESSES, (), -1.0 if fact.pid else 0.0)
        self._add(f.PROCESS_DEATHS, (), 1.0)

    def _add(self, family: f.Family, labels: Labels, value: float = 0.0) -> None:
        self._values[self._at[family][labels]] += value

    def _set(self, family: f.Family, labels: Labels, value: float) -> None:
        self._values[self._at[family][labels]] = value

    def _zero(self, family: f.Family) -> None:
        for offset in self._at[family].values():
            self._values[offset] = 0.0

    def _observe(self, bounds: tuple[float, ...], offset: int, value: float) -> int:
        """Add a value to a histogram, in its own bucket alone: the page adds them up. Return the bucket."""
        bucket = 0
        for bound in bounds:  # most are in one of the first
            if value <= bound:
                break
            bucket += 1
        self._values[offset + bucket] += 1
        self._values[offset + len(bounds) + 1] += value
        return bucket
