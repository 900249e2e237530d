"""A listener that counts: every metric of Holdfast derives from facts. What is counted stands in a `Sheet`."""

import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any

from ..config import VERSION
from ..events import Metadata
from . import families as f
from .facts import (
    Connected,
    ConsumerStarted,
    Disconnected,
    Fact,
    LoopTurned,
    Paused,
    ProcessDied,
    ProcessStarted,
    Published,
    QueueFigures,
    Resumed,
    Settled,
    Started,
    Stopped,
)
from .labels import OTHER, Labels, Names, Places
from .page import Examples, metrics_of
from .sheet import Sheet

if TYPE_CHECKING:
    from prometheus_client import Metric

_LAG_TURNS = 60
_SECONDS_SUM, _AGES_SUM = f.HANDLER_SECONDS.size - 1, f.EVENT_AGE.size - 1


@dataclass(slots=True)
class Ending:
    """Where the figures stand of one way a handler's deliveries end."""

    settled: int
    seconds: int
    age: int | None
    seconds_examples: dict[int, tuple[float, Metadata]]
    age_examples: dict[int, tuple[float, Metadata]]


@dataclass(slots=True)
class Consumer:
    """Figures of a queue, and where they stand in the sheet. `earlier` were received by consumers before this one."""

    figures: QueueFigures
    earlier: float
    received: int
    in_flight: int
    attached: int

    def copy_to(self, values: "memoryview[float]") -> None:
        """Write the figures as they are now."""
        values[self.received] = self.earlier + self.figures.received
        values[self.in_flight] = float(self.figures.in_flight)
        values[self.attached] = float(self.figures.attached)


class Metrics:
    """Give it to a worker or a publisher as a listener, and register it with a `prometheus_client` registry where it
    is to appear on a page of your own: `REGISTRY.register(metrics)`. `holdfast run` has one of its own.

    One serves the facts of one event loop. `sheet` is where it counts. What a consumer counts by itself
    (`ConsumerStarted`) is copied there by `refresh`: with each `collect`, and when the worker has stopped.
    """

    def __init__(self, sheet: Sheet | None = None) -> None:
        self.sheet = sheet or Sheet()
        self._values = self.sheet.values
        self._at = {family: Places(self.sheet, family) for family in f.FAMILIES}
        self._consumers: dict[str, Consumer] = {}
        self._copying = Lock()
        self._endings: dict[tuple[str, str, str, str], Ending] = {}
        self._examples: Examples = {}
        self._registered: frozenset[str] = frozenset()
        self._published, self._errors = Names(), Names()
        self._connections: set[str] = set()
        self._lags: deque[float] = deque(maxlen=_LAG_TURNS)
        self._listen: dict[type[Fact], Callable[[Any], None]] = {
            ConsumerStarted: self._consumer_started,
            Settled: self._settled,
            Published: self._publish,
            Connected: self._connected,
            Disconnected: self._disconnected,
            Paused: self._paused,
            Resumed: self._resumed,
            LoopTurned: self._turned,
            Started: self._started,
            Stopped: self._stopped,
            ProcessStarted: self._process_started,
            ProcessDied: self._process_died,
        }
        self._set(f.BUILD_INFO, VERSION, 1.0)

    def hears(self, kind: type[Fact]) -> bool:
        """Return whether facts of this kind are counted."""
        return kind in self._listen

    def __call__(self, fact: Fact) -> None:
        listen = self._listen.get(type(fact))
        if listen is not None:
            listen(fact)

    def collect(self) -> "Iterator[Metric]":
        """What a `prometheus_client` registry asks of a collector. Any thread may call it."""
        self.refresh()
        return metrics_of([self.sheet.memory], self._examples)

    def refresh(self) -> None:
        """Copy the figures of the consumers into the sheet. Any thread may call it."""
        with self._copying:
            for consumer in self._consumers.values():
                consumer.copy_to(self._values)

    def _consumer_started(self, fact: ConsumerStarted) -> None:
        """From here on each series of the queue is there, so that a rate over it sees its first message."""
        self.refresh()
        places = [self._at[family][fact.queue] for family in (f.RECEIVED, f.IN_FLIGHT, f.ATTACHED)]
        with self._copying:
            self._consumers[fact.queue] = Consumer(fact.figures, self._values[places[0]], *places)

    def _settled(self, fact: Settled) -> None:
        """Once for each message: what is looked up for it is looked up once for each way to end."""
        values, metadata = self._values, fact.metadata
        way = (fact.queue, fact.handler, metadata.event_type, fact.outcome)
        ending = self._endings.get(way) or self._ending(*way)
        values[ending.settled] += 1
        if seconds := fact.handler_seconds:
            bucket = bisect_left(f.SECONDS, seconds)
            values[ending.seconds + bucket] += 1
            values[ending.seconds + _SECONDS_SUM] += seconds
            ending.seconds_examples[bucket] = (seconds, metadata)
        if ending.age is not None:
            age = max(time.time() - metadata.time.timestamp(), 0.0)
            bucket = bisect_left(f.AGES, age)
            values[ending.age + bucket] += 1
            values[ending.age + _AGES_SUM] += age
            ending.age_examples[bucket] = (age, metadata)
        if fact.claim is not None:
            values[self._at[f.CLAIMS][fact.queue, fact.claim]] += 1
            self._observe(f.CLAIM_SECONDS, fact.claim_seconds)
        if fact.outcome == "postponed" and fact.error_type is not None:
            values[self._at[f.RETRIES][fact.queue, fact.handler, self._errors.bounded(fact.error_type)]] += 1
        elif fact.outcome == "dead_lettered":
            values[self._at[f.DEAD_LETTERS][fact.queue, fact.handler, str(fact.reason)]] += 1

    def _ending(self, queue: str, handler: str, event_type: str, outcome: str) -> Ending:
        if event_type not in self._registered:
            event_type = OTHER
        of_handler, aged = (queue, handler), outcome in ("handled", "dead_lettered")
        ending = Ending(
            self._at[f.SETTLED][queue, handler, event_type, outcome],
            self._at[f.HANDLER_SECONDS][of_handler],
            self._at[f.EVENT_AGE][of_handler] if aged else None,
            self._examples.setdefault((f.HANDLER_SECONDS.name, *of_handler), {}),
            self._examples.setdefault((f.EVENT_AGE.name, *of_handler), {}),
        )
        if event_type != OTHER:  # of others a sender could invent any number
            self._endings[queue, handler, event_type, outcome] = ending
        return ending

    def _publish(self, fact: Published) -> None:
        known = fact.event_type in self._registered
        event_type = fact.event_type if known else self._published.bounded(fact.event_type)
        self._values[self._at[f.PUBLISHED][event_type, fact.outcome]] += 1
        self._observe(f.PUBLISH_SECONDS, fact.seconds)

    def _connected(self, fact: Connected) -> None:
        if fact.role in self._connections:
            self._values[self._at[f.RECONNECTS][fact.role]] += 1
        self._connections.add(fact.role)
        self._set(f.CONNECTED, fact.role, 1.0)

    def _disconnected(self, fact: Disconnected) -> None:
        self._set(f.CONNECTED, fact.role, 0.0)

    def _paused(self, fact: Paused) -> None:
        self._set(f.PAUSED, (fact.queue, fact.reason), 1.0)

    def _resumed(self, fact: Resumed) -> None:
        self._set(f.PAUSED, (fact.queue, fact.reason), 0.0)

    def _turned(self, fact: LoopTurned) -> None:
        self._lags.append(fact.lag)
        self._set(f.LOOP_LAG, (), max(self._lags))

    def _started(self, fact: Started) -> None:
        self._registered |= frozenset(fact.event_types)
        for role in ("consume", "publish"):
            self._add(f.CONNECTED, role)
            self._add(f.RECONNECTS, role)

    def _stopped(self, fact: Stopped) -> None:
        self.refresh()
        self._zero(f.CONNECTED)
        self._zero(f.PAUSED)

    def _process_started(self, fact: ProcessStarted) -> None:
        self._add(f.PROCESSES, (), 1.0)
        self._add(f.PROCESS_DEATHS, ())

    def _process_died(self, fact: ProcessDied) -> None:
        self._add(f.PROCESSES, (), -1.0 if fact.pid else 0.0)
        self._add(f.PROCESS_DEATHS, (), 1.0)

    def _add(self, family: f.Family, labels: Labels, value: float = 0.0) -> None:
        self._values[self._at[family][labels]] += value

    def _set(self, family: f.Family, labels: Labels, value: float) -> None:
        self._values[self._at[family][labels]] = value

    def _zero(self, family: f.Family) -> None:
        for place in self._at[family].values():
            self._values[place] = 0.0

    def _observe(self, family: f.Family, value: float) -> None:
        """A value is counted in its own bucket alone; the page adds them up."""
        place = self._at[family][()]
        self._values[place + bisect_left(family.buckets, value)] += 1
        self._values[place + family.size - 1] += value
