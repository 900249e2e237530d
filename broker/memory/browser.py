"""Reading a queue of the in-memory broker without taking anything off it."""

import asyncio
from collections.abc import Callable

from ...events import BrokerUnavailable
from ..port import Held, OnHeld
from .queue import Entry, MemoryQueue


class MemoryBrowser:
    """See `broker.port.Browser`. `let_go` releases the lock on the queue."""

    is_lasting = True

    def __init__(self, queue: MemoryQueue, on_held: OnHeld, let_go: Callable[[], None]) -> None:
        self._queue: MemoryQueue | None = queue
        self._on_held = on_held
        self._let_go = let_go
        self._wanted = len(queue.ready)
        self._tag = 0
        self._removed = 0
        self._lent: dict[int, Entry] = {}
        self._complete = asyncio.Event()
        self._lost: str | None = None
        if not self._wanted:
            self._complete.set()

    @property
    def has_room(self) -> bool:
        return True

    async def caught_up(self) -> int:
        await self._complete.wait()
        if self._lost is not None:
            raise BrokerUnavailable(self._lost)
        return self._tag

    async def remove(self, *tags: int) -> bool:
        if self._queue is None:
            return False
        for tag in tags:
            del self._lent[tag]
            self._queue.settled()
        self._removed += len(tags)
        return True

    async def close(self) -> bool:
        is_sure = self._queue is not None or not self._removed
        self.detach("closed", 0.0)
        return is_sure

    def attach(self, queue: MemoryQueue) -> None:
        """See `Taker.attach`."""
        queue.takers.append(self)
        queue.serve()

    def detach(self, error: str, again_in: float) -> None:
        """See `Taker.detach`. A browser is not attached again."""
        queue, self._queue = self._queue, None
        if queue is None:
            return
        entries = list(self._lent.values())
        self._lent.clear()
        queue.leave(self)
        queue.give_back(entries)
        self._let_go()
        if not self._complete.is_set():
            self._lost = f"{error} while {queue.name} was read"
            self._complete.set()

    def take(self, entry: Entry) -> None:
        """See `Taker.take`."""
        self._tag += 1
        self._lent[self._tag] = entry
        asyncio.get_running_loop().call_soon(self._hand_over, self._tag)

    def _hand_over(self, tag: int) -> None:
        if (entry := self._lent.get(tag)) is None:
            return
        try:
            self._on_held(Held(entry.message, tag, entry.returns))
        finally:
            if tag == self._wanted:
                self._complete.set()
