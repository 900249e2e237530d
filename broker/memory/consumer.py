"""One queue being consumed: bounded, handed on by the loop, attached again by itself."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from ...events import Message
from ...telemetry import Attached, Detached, Emit
from ..port import Delivery, OnDelivery
from .queue import Entry, MemoryQueue


class MemoryConsumer:
    """See `broker.port.Consumer`. `reattach` is called, on the loop, when it was detached by its own doing."""

    is_lasting = True

    def __init__(
        self, queue: str, prefetch: int, on_delivery: OnDelivery, *, emit: Emit, reattach: Callable[[], None]
    ) -> None:
        self.queue_name = queue
        self._prefetch = prefetch
        self._on_delivery = on_delivery
        self._emit = emit
        self._reattach = reattach
        self._queue: MemoryQueue | None = None
        self._generation = 0
        self._last_tag = 0
        self._unsettled: dict[int, Entry] = {}
        self._inbox: deque[int] = deque()
        self._handing_over = False
        self._stopping = False

    @property
    def attached(self) -> bool:
        return self._queue is not None and not self._stopping

    @property
    def has_room(self) -> bool:
        return not self._prefetch or len(self._unsettled) < self._prefetch

    def is_current(self, delivery: Delivery) -> bool:
        return delivery.generation == self._generation and self._queue is not None

    async def ack(self, delivery: Delivery) -> bool:
        queue, entry = self._queue, self._take_back(delivery)
        if queue is None or entry is None:
            return False
        queue.settled()
        return True

    async def give_back(self, delivery: Delivery) -> bool:
        queue, entry = self._queue, self._take_back(delivery)
        if queue is None or entry is None:
            return False
        queue.give_back((entry,))
        return True

    async def stop(self, *, close: bool) -> None:
        self._stopping = True
        queue = self._queue
        if queue is None:
            return
        queue.leave(self)
        not_handed_over = [self._unsettled.pop(tag) for tag in self._inbox]
        self._inbox.clear()
        if close:
            not_handed_over += self._unsettled.values()
            self._unsettled.clear()
            self._queue = None
        queue.give_back(not_handed_over)

    def attach(self, queue: MemoryQueue) -> None:
        """See `Taker.attach`. Each time is a generation of its own, with tags from 1, as on a new channel."""
        if self._stopping or self._queue is not None:
            return
        self._generation += 1
        self._last_tag = 0
        self._queue = queue
        queue.takers.append(self)
        self._emit(Attached(self.queue_name, self._generation))
        queue.serve()

    def detach(self, error: str, again_in: float) -> None:
        """See `Taker.detach`."""
        queue, self._queue = self._queue, None
        if queue is None:
            return
        entries = list(self._unsettled.values())
        self._unsettled.clear()
        self._inbox.clear()
        queue.leave(self)
        queue.give_back(entries)
        if not self._stopping:
            self._emit(Detached(self.queue_name, error, again_in))

    def take(self, entry: Entry) -> None:
        """See `Taker.take`. Handed on with the next turn of the loop, all that is there at once."""
        self._last_tag += 1
        self._unsettled[self._last_tag] = entry
        self._inbox.append(self._last_tag)
        if not self._handing_over:
            self._handing_over = True
            asyncio.get_running_loop().call_soon(self._hand_over)

    def _take_back(self, delivery: Delivery) -> Entry | None:
        if not self.is_current(delivery):
            return None
        entry = self._unsettled.pop(delivery.tag, None)
        if entry is None:  # settled twice: RabbitMQ closes the channel, and everything on it comes back
            self.detach(f"PRECONDITION_FAILED - unknown delivery tag {delivery.tag}", 0.0)
            asyncio.get_running_loop().call_soon(self._reattach)
        return entry

    def _hand_over(self) -> None:
        try:
            while self._inbox:
                self._on_delivery(self._delivery(self._inbox.popleft()))
        finally:
            self._handing_over = bool(self._inbox)
            if self._inbox:  # `on_delivery` raised: the others are not to suffer for it
                asyncio.get_running_loop().call_soon(self._hand_over)

    def _delivery(self, tag: int) -> Delivery:
        entry = self._unsettled[tag]
        redelivered = entry.returns > 0
        message = entry.message
        if redelivered and self._queue is not None and self._queue.is_quorum:
            message = _counted(message, entry.returns)
        return Delivery(message, self.queue_name, tag, self._generation, redelivered, self)


def _counted(message: Message, returns: int) -> Message:
    """A quorum queue says how often it delivered a message before."""
    return replace(message, headers={**message.headers, "x-delivery-count": returns})
