"""One attachment to a queue, which ends when it is detached."""

import asyncio
from collections import deque

from ..port import Offset, OnLost, OnTaken
from .queue import Entry, MemoryQueue


class MemoryAttachment:
    """See `broker.port.Attachment`, and `Taker`."""

    is_lasting = False

    def __init__(self, prefetch: int, on_taken: OnTaken, on_lost: OnLost, offset: Offset | None) -> None:
        self.offset = offset
        self._prefetch = prefetch
        self._on_taken = on_taken
        self._on_lost = on_lost
        self._queue: MemoryQueue | None = None
        self._last_tag = 0
        self._in_hand: dict[int, Entry] = {}
        self._inbox: deque[int] = deque()

    @property
    def is_open(self) -> bool:
        return self._queue is not None

    @property
    def has_room(self) -> bool:
        return not self._prefetch or len(self._in_hand) < self._prefetch

    def remove(self, tag: int) -> bool:
        queue = self._queue
        if queue is None:
            return False
        if self._in_hand.pop(tag, None) is None:  # removed twice: RabbitMQ closes the channel
            self.detach(f"PRECONDITION_FAILED - unknown delivery tag {tag}", 0.0)
            return False
        queue.settled()
        return True

    async def close(self) -> None:
        self._leave()

    def attach(self, queue: MemoryQueue) -> None:
        """See `Taker.attach`."""
        self._queue = queue
        queue.takers.append(self)
        queue.serve()

    def detach(self, error: str, again_in: float) -> None:
        """See `Taker.detach`. It is not attached again."""
        if self._queue is not None:
            self._leave()
            self._on_lost(error)

    def take(self, entry: Entry) -> None:
        """See `Taker.take`."""
        self._last_tag += 1
        self._in_hand[self._last_tag] = entry
        self._inbox.append(self._last_tag)
        asyncio.get_running_loop().call_soon(self._hand_over)

    def _leave(self) -> None:
        queue, self._queue = self._queue, None
        if queue is None:
            return
        entries = list(self._in_hand.values())
        self._in_hand.clear()
        self._inbox.clear()
        queue.leave(self)
        queue.give_back(entries)

    def _hand_over(self) -> None:
        if self._inbox:
            tag = self._inbox.popleft()
            entry = self._in_hand[tag]
            self._on_taken(entry.message, tag, entry.returns > 0)
