"""Which delivery runs next: one lane per queue, a bound for the process, and no lane that starves another."""

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


class Scheduler:
    """At most `concurrency` handlers run. Where there are enough slots, each lane has one of its own, so that
    handlers that hang in one queue never stop another; the rest are shared, the lane that runs least going first."""

    def __init__(self, concurrency: int) -> None:
        self._concurrency = concurrency
        self._lanes: list[Lane] = []
        self._running = 0
        self._closed = False

    def add(self, lane: Lane) -> None:
        self._lanes.append(lane)

    @property
    def running(self) -> int:
        return self._running

    def offer(self, lane: Lane, delivery: Delivery) -> None:
        """Start the delivery now or let it wait for a slot."""
        if not self._closed and not lane.inbox and self._may_start(lane):
            self._start(lane, delivery)
        else:
            lane.inbox.append(delivery)

    def release(self, lane: Lane) -> None:
        """A handler of the lane has ended: its slot goes to whoever runs least."""
        lane.running -= 1
        self._running -= 1
        while not self._closed:
            ready = [lane for lane in self._lanes if lane.inbox and self._may_start(lane)]
            if not ready:
                return
            least = min(ready, key=lambda lane: lane.running)
            self._start(least, least.inbox.popleft())

    def close(self) -> list[Delivery]:
        """Start nothing more. Returns what was waiting."""
        self._closed = True
        waiting = [delivery for lane in self._lanes for delivery in lane.inbox]
        for lane in self._lanes:
            lane.inbox.clear()
        return waiting

    def _may_start(self, lane: Lane) -> bool:
        if lane.running >= lane.limit or self._running >= self._concurrency:
            return False
        if lane.running == 0 or len(self._lanes) > self._concurrency:
            return True
        idle = sum(1 for other in self._lanes if other.running == 0)
        return self._concurrency - self._running > idle

    def _start(self, lane: Lane, delivery: Delivery) -> None:
        lane.running += 1
        self._running += 1
        lane.start(delivery)
