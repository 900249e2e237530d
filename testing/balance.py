"""The account of a harness: each event that was published for a handler ended somewhere, or the test fails."""

from collections.abc import Iterable, Set
from dataclasses import dataclass

from ..telemetry import Settled
from .records import DeadLettered
from .server import EventInQueue, WatchedServer

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
