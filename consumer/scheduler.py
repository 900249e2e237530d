"""Which delivery runs next: one lane per queue, a bound for the process, and no lane that starves another."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from ..broker import Delivery


@dataclass(slots=True, eq=False)
class Lane:
    """Deliveries of one queue: those that wait and how many run, at most `limit`."""

    queue: str
    limit: int
    start: Callable[[Delivery], None]
    inbox: deque[Delivery] = field(default_factory=deque)
    running: int = 0
    is_paused: bool = False


class Scheduler:
    """At most `concurrency` handlers run. Where there are enough slots, each lane has one of its own, so that
    handlers that hang in one queue never stop another; the rest are shared, the lane that runs least going first.

    A running one may ask to be alone: nothing more starts until the others have ended and it has had its turn.
    """

    def __init__(self, concurrency: int) -> None:
        self._concurrency = concurrency
        self._lanes = 0
        self._idle = 0
        self._waiting: dict[Lane, None] = {}  # lanes in whose inbox something may wait
        self._running = 0
        self._abandoned = 0
        self._closed = False
        self._shy: deque[asyncio.Future[None]] = deque()
        self._one_is_alone = False

    def add(self, lane: Lane) -> None:
        self._lanes += 1
        self._idle += 1

    @property
    def running(self) -> int:
        return self._running

    def offer(self, lane: Lane, delivery: Delivery) -> None:
        """Start the delivery now or let it wait for a slot."""
        if not lane.inbox and self._may_start(lane):
            self._start(lane, delivery)
        else:
            lane.inbox.append(delivery)
            self._waiting[lane] = None

    def release(self, lane: Lane, *, abandoned: bool = False) -> None:
        """A handler of the lane has ended: its slot goes to whoever runs least."""
        lane.running -= 1
        self._idle += lane.running == 0
        self._running -= 1
        self._abandoned -= abandoned
        self._next()

    def abandon(self) -> None:
        """A handler does not end. It keeps its slot until `release(abandoned=True)`, but nobody waits for it."""
        self._abandoned += 1
        self._next()

    async def be_alone(self) -> None:
        """Return once nothing else runs. Whoever called it has a slot, and calls `end_alone` when it is through."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._shy.append(turn)
        self._next()
        try:
            await turn
        except asyncio.CancelledError:
            if turn in self._shy:
                self._shy.remove(turn)
                self._next()
            else:
                self.end_alone()
            raise

    def end_alone(self) -> None:
        self._one_is_alone = False
        self._next()

    def pause(self, lane: Lane) -> list[Delivery]:
        """Start nothing of the lane. Returns what was waiting in it."""
        lane.is_paused = True
        waiting = list(lane.inbox)
        lane.inbox.clear()
        return waiting

    def resume(self, lane: Lane) -> None:
        lane.is_paused = False

    def close(self) -> None:
        """Start nothing more."""
        self._closed = True

    def _next(self) -> None:
        if self._one_is_alone:
            return
        if self._shy:
            turn = next((turn for turn in self._shy if not turn.done()), None)  # who was cancelled leaves by itself
            if turn is not None and self._running - self._abandoned <= len(self._shy):
                self._one_is_alone = True
                self._shy.remove(turn)
                turn.set_result(None)
            return
        while (lane := self._hungriest()) is not None:
            self._start(lane, lane.inbox.popleft())

    def _hungriest(self) -> Lane | None:
        """Of the lanes that may start something, the one that runs least."""
        found: Lane | None = None
        for lane in tuple(self._waiting):
            if not lane.inbox:
                del self._waiting[lane]
            elif (found is None or lane.running < found.running) and self._may_start(lane):
                found = lane
        return found

    def _may_start(self, lane: Lane) -> bool:
        if self._closed or lane.is_paused or self._shy or self._one_is_alone:
            return False
        if lane.running >= lane.limit or self._running >= self._concurrency:
            return False
        return lane.running == 0 or self._lanes > self._concurrency or self._concurrency - self._running > self._idle

    def _start(self, lane: Lane, delivery: Delivery) -> None:
        self._idle -= lane.running == 0
        lane.running += 1
        self._running += 1
        lane.start(delivery)
