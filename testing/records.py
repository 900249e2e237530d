"""What a harness saw, as plain values."""

from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..consumer import HandlerSpec
from ..dead_letters import Letter
from ..dead_letters.letter import key_of, read_letter
from ..events import Event, Message, Metadata, Unreadable, decode, decoder_for, read_metadata
from ..telemetry import Settled
from .server import EventInQueue, WatchedServer, delay_of


@dataclass(frozen=True, slots=True)
class Run:
    """One call of a handler.

    Attributes:
        event: What the handler was called with: an `Event`, a `dict` or `bytes`.
        metadata: The event's metadata.
        handler: The handler's name.
        queue: Its queue.
        attempt: The number of the attempt, from 1.
    """

    event: Any
    metadata: Metadata
    handler: str
    queue: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Retried:
    """An attempt that failed and was followed by another.

    Attributes:
        event: What the handler was called with.
        metadata: The event's metadata.
        handler: The handler's name.
        queue: Its queue.
        attempt: The number of the attempt that failed, from 1.
        delay: Seconds until the next one.
        error: The error's type and text.
    """

    event: Any
    metadata: Metadata
    handler: str
    queue: str
    attempt: int
    delay: float
    error: str


@dataclass(frozen=True, slots=True)
class Published:
    """An event that was published, confirmed and routed.

    Attributes:
        event: The event.
        metadata: Its metadata.
        delay: Seconds until it is delivered; None where it was not delayed.
    """

    event: Any
    metadata: Metadata
    delay: float | None = None


@dataclass(frozen=True, slots=True)
class DeadLettered:
    """A message in a dead-letter queue.

    Attributes:
        event: The event; a `dict` where it is not what its class says, None where it is no JSON object.
        handler: The handler's name.
        queue: Its queue.
        reason: Why it is a dead letter, such as `exhausted`.
        attempt: The number of the last attempt.
        error_type: The name of the error's class.
        error: The error's text.
        letter: Everything else.
    """

    event: Any
    handler: str
    queue: str
    reason: str
    attempt: int
    error_type: str
    error: str
    letter: Letter


def troubles(retries: Iterable[Retried], dead: Iterable[DeadLettered]) -> str:
    """What a test that failed may want to know of errors in handlers, a line each; the first twenty."""
    lines = [f"  {one.handler}, attempt {one.attempt}, retried: {one.error}" for one in retries]
    lines += [f"  {one.handler}: dead-lettered ({one.reason}): {one.error_type}: {one.error}" for one in dead]
    return "".join(f"\n{line[:300]}" for line in lines[:20])


def read_published(message: Message, now: datetime, handlers: Iterable[HandlerSpec]) -> Published:
    """An event as it was published."""
    metadata = read_metadata(message, now)
    return Published(_event(message, metadata, handlers), metadata, delay_of(message))


def read_dead(message: Message, position: int, now: datetime, handler: HandlerSpec) -> DeadLettered:
    """A message in the dead-letter queue of `handler`."""
    letter = read_letter(message, key=key_of(message), position=position)
    event = _event(message, read_metadata(message, now), (handler,))
    about = (letter.reason, letter.attempt, letter.error_type, letter.error_message)
    return DeadLettered(event, handler.name, handler.queue, *about, letter)


def _event(message: Message, metadata: Metadata, handlers: Iterable[HandlerSpec]) -> Any:
    """The event as the class that handlers take it as, or else the class last defined for its type and version.
    A `dict` where no class reads it, None where it is no JSON object."""
    kinds = (kind for spec in handlers for taken in spec.kinds.values() for kind in taken if isinstance(kind, type))
    taken = [kind for kind in kinds if issubclass(kind, Event)]
    for kind in (*taken, *reversed([*_all_below(Event)])):
        if (kind.__event_type__, kind.__event_version__) == (metadata.event_type, metadata.version):
            try:
                return decode(decoder_for(kind), message)
            except Unreadable:
                continue
    try:
        return decode(decoder_for(dict), message)
    except Unreadable:
        return None


def _all_below(kind: type[Event]) -> Iterator[type[Event]]:
    for below in kind.__subclasses__():
        yield below
        yield from _all_below(below)


__tracebackhide__ = True


@dataclass(frozen=True, slots=True)
class Balance:
    """The events of a harness by where they ended, each with the queue of a handler it was published for.

    An event counts once for each queue: a dead one is not queued, and one that was acked is neither."""

    published: Set[EventInQueue]
    acked: Set[EventInQueue]
    dead: Set[EventInQueue]
    queued: Set[EventInQueue]

    def check(self) -> None:
        """Raise `AssertionError` unless acked, dead and queued together are what was published."""
        ended = self.acked | self.dead | self.queued
        lost, strange = self.published - ended, ended - self.published
        if lost or strange:
            raise AssertionError("\n".join([self.text(), *_named("lost", lost), *_named("never published", strange)]))

    def text(self) -> str:
        """The figures in one line."""
        acked, dead = len(self.acked), len(self.dead - self.acked)
        queued = len(self.queued - self.dead - self.acked)
        return f"{len(self.published)} published = {acked} acked + {dead} dead-lettered + {queued} queued"


def balance_of(server: WatchedServer, settled: Iterable[Settled], dead: Iterable[DeadLettered]) -> Balance:
    """Of a harness whose workers have stopped. What is acked is what they said they settled for good; what is dead and
    what is queued is what the broker has."""
    ends = {(fact.metadata.event_id, fact.queue) for fact in settled if fact.outcome in ("handled", "duplicate")}
    published = {(taken.event_id, queue) for taken in server.taken for queue in taken.queues}
    letters = {(letter.letter.event_id, letter.queue) for letter in dead}
    return Balance(published, ends, letters, server.resting())


def _named(what: str, events: Set[EventInQueue]) -> list[str]:
    return [f"{what}: event {event_id} for {queue}" for event_id, queue in sorted(events)]
