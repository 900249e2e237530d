"""One queue: first in, first out, with consumers in turn, a time to live and a limit of deliveries."""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol, TypeAlias

from ...events import Message, headers
from ..clock import Clock, Timer
from ..topology import Queue


@dataclass(slots=True)
class Entry:
    """A message in its position. `returns` counts how often it came back unsettled."""

    message: Message
    position: int
    expires_at: float | None
    returns: int = 0


class Taker(Protocol):
    """Whom a queue hands messages to. One that is lasting is attached again when its queue is declared again."""

    is_lasting: bool

    @property
    def has_room(self) -> bool:
        """Whether it may be given one more."""
        ...

    def attach(self, queue: "MemoryQueue") -> None:
        """The queue is there: take from it."""
        ...

    def detach(self, error: str, again_in: float) -> None:
        """Nothing comes any more; what was not settled goes back. Attached again in `again_in` seconds."""
        ...

    def take(self, entry: Entry) -> None:
        """Receive a message. Must not call back into the queue."""
        ...


Bury: TypeAlias = Callable[["MemoryQueue", Entry, str], None]
"""What becomes of a message that leaves its queue unsettled: queue, entry, reason."""


class MemoryQueue:
    """A queue and all that happens at its ends. Everything is O(1) but giving back out of order."""

    def __init__(self, declared: Queue, bury: Bury, clock: Clock) -> None:
        arguments = declared.arguments
        ttl, limit = arguments.get("x-message-ttl"), arguments.get("x-delivery-limit")
        self.name = declared.name
        self.arguments = dict(arguments)
        self.is_quorum = arguments.get("x-queue-type") == "quorum"
        self.ready: deque[Entry] = deque()
        self.unsettled = 0
        self.stranded: deque[Message] = deque()
        self.takers: deque[Taker] = deque()
        self.deleted = False
        self._bury = bury
        self._clock = clock
        self._ttl = None if ttl is None else ttl / 1000
        self._delivery_limit = limit if self.is_quorum and limit is not None and limit >= 0 else None
        self._max_length: int | None = arguments.get("x-max-length")
        self._rejects = str(arguments.get("x-overflow", "")).startswith("reject-publish")
        self._single = bool(arguments.get("x-single-active-consumer"))
        self._next_position = 0
        self._timer: Timer | None = None

    @property
    def full(self) -> bool:
        """Whether a publish is refused now."""
        return self._rejects and self._max_length is not None and len(self.ready) >= self._max_length

    def put(self, message: Message) -> None:
        """Append a message. A full queue that does not refuse drops its head."""
        expires_at = None if self._ttl is None else self._clock.time() + self._ttl
        self.ready.append(Entry(message, self._next_position, expires_at))
        self._next_position += 1
        self.serve()
        while self._max_length is not None and not self._rejects and len(self.ready) > self._max_length:
            self._bury(self, self.ready.popleft(), "maxlen")

    def serve(self) -> None:
        """Hand out what is ready, to each taker with room in turn."""
        if self.takers and self.ready:
            if self._ttl is not None:
                self._expire(self._clock.time())
            while self.ready and (taker := self._next_taker()) is not None:
                self.unsettled += 1
                taker.take(self.ready.popleft())
        if self._ttl is not None:
            self._wind()

    def settled(self) -> None:
        """One message was acknowledged: it is gone, and there is room for another."""
        self.unsettled -= 1
        if self.ready:
            self.serve()

    def give_back(self, entries: Iterable[Entry]) -> None:
        """Return unsettled messages to their old places; past the delivery limit they are dead-lettered."""
        kept: list[Entry] = []
        for entry in sorted(entries, key=lambda entry: entry.position):
            self.unsettled -= 1
            entry.returns += 1
            if self._delivery_limit is not None and entry.returns > self._delivery_limit and not self.deleted:
                self._bury(self, entry, "delivery_limit")
            else:
                kept.append(entry)
        if self.deleted:
            return
        for entry in reversed(kept):
            self._insert(entry)
        self.serve()

    def leave(self, taker: Taker) -> None:
        """The taker gets nothing more. What it holds is given back next, before others are served."""
        if taker in self.takers:
            self.takers.remove(taker)

    def delete(self) -> None:
        """Drop everything and let go of the clock."""
        self.deleted = True
        self.ready.clear()
        self.stranded.clear()
        self._wind()

    def _next_taker(self) -> Taker | None:
        if self._single:
            return self.takers[0] if self.takers[0].has_room else None
        for _ in range(len(self.takers)):
            taker = self.takers[0]
            self.takers.rotate(-1)
            if taker.has_room:
                return taker
        return None

    def _insert(self, entry: Entry) -> None:
        index = 0
        for other in self.ready:
            if other.position > entry.position:
                break
            index += 1
        self.ready.insert(index, entry)

    def _expire(self, now: float) -> None:
        while self.ready and (expires_at := self.ready[0].expires_at) is not None and expires_at <= now:
            self._bury(self, self.ready.popleft(), "expired")

    def _wind(self) -> None:
        """One timer, for the head alone: all live equally long, so it expires first. It may ring early, never late."""
        head = self.ready[0].expires_at if self.ready else None
        if self._timer is not None and (head is None or head < self._timer.when()):
            self._timer.cancel()
            self._timer = None
        if head is not None and self._timer is None:
            self._timer = self._clock.call_at(head, self._ring, head)

    def _ring(self, due: float) -> None:
        self._timer = None
        self._expire(due)
        self._wind()


def died(message: Message, queue: str, reason: str, at: datetime) -> Message:
    """The message with its death written down: one table per queue and reason, the latest first."""
    deaths = headers.deaths(message.headers)
    known = next((death for death in deaths if (death.get("queue"), death.get("reason")) == (queue, reason)), None)
    latest = (
        {**known, "count": known["count"] + 1}
        if known
        else {
            "count": 1,
            "reason": reason,
            "queue": queue,
            "time": at.replace(microsecond=0),
            "exchange": message.exchange,
            "routing-keys": [message.routing_key],
        }
    )
    first = {"x-first-death-exchange": message.exchange, "x-first-death-queue": queue, "x-first-death-reason": reason}
    others = [death for death in deaths if death is not known]
    return replace(message, headers={**first, **message.headers, "x-death": [latest, *others]})


def completes_a_cycle(message: Message, queue: str) -> bool:
    """Whether the message died in `queue` before and no rejection lies between: RabbitMQ drops it there."""
    for death in headers.deaths(message.headers):
        if death.get("reason") == "rejected":
            return False
        if death.get("queue") == queue:
            return True
    return False
