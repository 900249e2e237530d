"""One timer for many items that have the same time each."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from .clock import REAL, Clock, Timer

T = TypeVar("T")


class Countdown(Generic[T]):
    """Calls `due` with each item that was added `seconds` ago and not removed since."""

    def __init__(self, seconds: float, due: Callable[[T], None], clock: Clock = REAL) -> None:
        self.seconds = seconds
        self._due = due
        self._ends: OrderedDict[T, float] = OrderedDict()  # the next to end first, since all have the same time
        self._timer: Timer | None = None
        self._clock = clock

    def add(self, item: T) -> None:
        """Start the time of an item."""
        self._ends[item] = ends = self._clock.time() + self.seconds
        if self._timer is None:
            self._timer = self._clock.call_at(ends, self._tick)

    def remove(self, item: T) -> None:
        """Stop the time of an item."""
        self._ends.pop(item, None)

    def close(self) -> None:
        """Forget all items."""
        self._ends.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _tick(self) -> None:
        self._timer = None
        now = self._clock.time()
        while self._ends:
            item, ends = next(iter(self._ends.items()))
            if ends > now:
                self._timer = self._clock.call_at(ends, self._tick)
                return
            del self._ends[item]
            self._due(item)
