"""One timer for many things that have the same time each."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Countdown(Generic[T]):
    """Calls `due` with each thing that was added `seconds` ago and not removed since."""

    def __init__(self, seconds: float, due: Callable[[T], None]) -> None:
        self.seconds = seconds
        self._due = due
        self._ends: OrderedDict[T, float] = OrderedDict()  # the next to end first, since all have the same time
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    def add(self, thing: T) -> None:
        self._ends[thing] = ends = self._loop.time() + self.seconds
        if self._timer is None:
            self._timer = self._loop.call_at(ends, self._look)

    def remove(self, thing: T) -> None:
        self._ends.pop(thing, None)

    def close(self) -> None:
        self._ends.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        self._timer = None
        now = self._loop.time()
        while self._ends:
            thing, ends = next(iter(self._ends.items()))
            if ends > now:
                self._timer = self._loop.call_at(ends, self._look)
                return
            del self._ends[thing]
            self._due(thing)
