"""A stream: messages stay in it, and each reader has an offset of its own."""

from collections import deque
from dataclasses import replace
from datetime import datetime

from ...events import Message
from ..clock import Clock
from ..port import STREAM_OFFSET, Offset
from ..topology import Queue
from .queue import Bury, Entry, MemoryQueue, Taker


class MemoryStream(MemoryQueue):
    """A queue of the type `stream`. It keeps `x-max-length-bytes` of bodies, whatever their age."""

    def __init__(self, declared: Queue, bury: Bury, clock: Clock) -> None:
        super().__init__(declared, bury, clock)
        self._most_bytes: int | None = self.arguments.get("x-max-length-bytes")
        self._bytes = 0
        self._came: deque[datetime] = deque()  # when each message that is ready did
        self._next: dict[Taker, int] = {}

    def put(self, message: Message) -> None:
        """Append a message. The first ones go where there are too many bytes."""
        self.ready.append(Entry(message, self._next_position, None))
        self._came.append(self._clock.now())
        self._next_position += 1
        self._bytes += len(message.body)
        while self._most_bytes is not None and self._bytes > self._most_bytes and len(self.ready) > 1:
            self._came.popleft()
            self._bytes -= len(self.ready.popleft().message.body)
        self.serve()

    def serve(self) -> None:
        """Hand each reader what it has room for."""
        for taker in self.takers:
            if taker not in self._next:
                self._next[taker] = self._begin(getattr(taker, "offset", None))
            first = self._next_position - len(self.ready)
            at = max(self._next[taker], first)
            while at < self._next_position and taker.has_room:
                entry = self.ready[at - first]
                headers = {**entry.message.headers, STREAM_OFFSET: at}
                taker.take(Entry(replace(entry.message, headers=headers), at, None))
                at += 1
            self._next[taker] = at

    def settled(self) -> None:
        """Hand a reader the next message: it has room again."""
        self.serve()

    def give_back(self, entries: object) -> None:
        """Do nothing: a stream keeps what it gives."""

    def leave(self, taker: Taker) -> None:
        """Forget a reader."""
        self._next.pop(taker, None)
        super().leave(taker)

    def _begin(self, offset: Offset | None) -> int:
        first = self._next_position - len(self.ready)
        match offset:
            case int():
                return offset
            case datetime():
                return first + sum(came < offset for came in self._came)
            case "first":
                return first
            case _:
                return self._next_position
