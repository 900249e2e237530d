"""Slots for handlers: bounded for the process and for each lane, and no lane starves another."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from ..broker import Delivery

Start: TypeAlias = "Callable[[Delivery, Slot], None]"


@dataclass(slots=True, eq=False)
class Lane:
    """The deliveries of one queue that wait for a slot, and how many have one: at most `limit`."""

    slots: "Slots"
    limit: int
    start: Start
    deliveries: deque[Delivery] = field(default_factory=deque)
    running: int = 0
    is_paused: bool = False

    def offer(self, delivery: Delivery) -> None:
        """Start the delivery now, or let it wait for a slot."""
        if not self.deliveries and self.slots.may_start(self):
            self.slots.start(self, delivery)
        else:
            self.deliveries.append(delivery)
            self.slots.waiting[self] = None

    def drop_stale(self) -> None:
        """Forget the deliveries whose channel is lost: they are delivered again."""
        self.drop(lambda delivery: not delivery.consumer.is_current(delivery))

    def drop(self, is_dropped: Callable[[Delivery], bool]) -> None:
        """Forget some of the deliveries that wait: nobody gives them back one by one."""
        kept = [delivery for delivery in self.deliveries if not is_dropped(delivery)]
        self.deliveries.clear()
        self.deliveries.extend(kept)

    def pause(self) -> list[Delivery]:
        """Start nothing more. Returns the deliveries that waited."""
        self.is_paused = True
        waiting = list(self.deliveries)
        self.deliveries.clear()
        return waiting

    def resume(self) -> None:
        """Start deliveries again."""
        self.is_paused = False


class Slot:
    """The right of one delivery to run its handler. `with slot:` frees it at the end of the block."""

    __slots__ = ("is_alone", "is_taken", "lane")

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.is_taken, self.is_alone = True, False

    def __enter__(self) -> "Slot":
        return self

    def __exit__(self, *_: object) -> None:
        """Let another delivery have it, unless it is free already, or kept by an abandoned handler."""
        if self.is_taken:
            self.is_taken = False
            self.lane.slots.release(self.lane)

    def close(self) -> None:
        """End all rights of the delivery: others run again next to it."""
        self.__exit__()
        if self.is_alone:
            self.is_alone = False
            self.lane.slots.end_alone()

    async def alone(self) -> None:
        """Return once no other handler runs in this process; none starts until `close`."""
        await self.lane.slots.alone()
        self.is_alone = True

    def abandon(self, handlers: Iterable["asyncio.Future[Any]"]) -> None:
        """Keep the slot until these have ended, but let no suspect wait for them."""
        if not self.is_taken:
            return
        self.is_taken = False
        left = set(handlers)

        def ended(handler: "asyncio.Future[Any]") -> None:
            left.discard(handler)
            if not left:
                self.lane.slots.release(self.lane, abandoned=True)

        for handler in tuple(left):
            handler.add_done_callback(ended)
        self.lane.slots.abandon()


class Slots:
    """At most `concurrency` slots are taken. Where there are enough, each lane has one of its own, so that handlers
    that hang in one queue never stop another; the rest are shared, the lane that runs least going first.

    The holder of a slot may ask to be alone: nothing more starts until the others have ended and it has had its turn.
    """

    def __init__(self, concurrency: int) -> None:
        self.waiting: dict[Lane, None] = {}  # lanes in which something may wait
        self.running = 0
        self._concurrency = concurrency
        self._lanes = 0
        self._idle = 0
        self._abandoned = 0
        self._is_closed = False
        self._suspects: deque[asyncio.Future[None]] = deque()
        self._one_is_alone = False

    def lane(self, limit: int, start: Start) -> Lane:
        """Return a lane for one more queue. `start` is called with each delivery that gets a slot."""
        self._lanes += 1
        self._idle += 1
        return Lane(self, limit, start)

    def may_start(self, lane: Lane) -> bool:
        """Return whether a slot is free for the lane."""
        if self._is_closed or lane.is_paused or self._suspects or self._one_is_alone:
            return False
        if lane.running >= lane.limit or self.running >= self._concurrency:
            return False
        return lane.running == 0 or self._lanes > self._concurrency or self._concurrency - self.running > self._idle

    def start(self, lane: Lane, delivery: Delivery) -> None:
        """Give a slot to a delivery."""
        self._idle -= lane.running == 0
        lane.running += 1
        self.running += 1
        lane.start(delivery, Slot(lane))

    def release(self, lane: Lane, *, abandoned: bool = False) -> None:
        """Take a slot back, and give it to the lane that runs least."""
        lane.running -= 1
        self._idle += lane.running == 0
        self.running -= 1
        self._abandoned -= abandoned
        if self.waiting or self._suspects:
            self._next()

    def abandon(self) -> None:
        """Count a handler that does not end: a suspect does not wait for it."""
        self._abandoned += 1
        self._next()

    async def alone(self) -> None:
        """Return once nothing else runs. The caller has a slot, and calls `end_alone` when it is through."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._suspects.append(turn)
        self._next()
        try:
            await turn
        except asyncio.CancelledError:
            if turn in self._suspects:
                self._suspects.remove(turn)
                self._next()
            else:
                self.end_alone()
            raise

    def end_alone(self) -> None:
        """Let others run again."""
        self._one_is_alone = False
        self._next()

    def close(self) -> None:
        """Start nothing more."""
        self._is_closed = True

    def _next(self) -> None:
        if self._one_is_alone:
            return
        if self._suspects:
            turn = next((turn for turn in self._suspects if not turn.done()), None)  # a cancelled one leaves by itself
            if turn is not None and self.running - self._abandoned <= len(self._suspects):
                self._one_is_alone = True
                self._suspects.remove(turn)
                turn.set_result(None)
            return
        while (lane := self._least_running()) is not None:
            delivery = lane.deliveries.popleft()
            if delivery.consumer.is_current(delivery):  # a stale one is delivered again
                self.start(lane, delivery)

    def _least_running(self) -> Lane | None:
        """Return the lane that runs least of those that may start something."""
        least: Lane | None = None
        for lane in tuple(self.waiting):
            if not lane.deliveries:
                del self.waiting[lane]
            elif (least is None or lane.running < least.running) and self.may_start(lane):
                least = lane
        return least
