"""Time as a value that is passed in: the running loop's and the system's by default, a virtual one in tests.

Time limits of many items by one timer are here too; pauses between tries are in `pause.py`.
"""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from time import monotonic
from typing import Any, Final, Generic, Protocol, TypeVar

T = TypeVar("T")


class Timer(Protocol):
    """A call that was asked for."""

    def cancel(self) -> None: ...

    def when(self) -> float:
        """Return the clock's time at which it is due."""
        ...


class Clock(Protocol):
    """The source of time for waits, ages and time limits."""

    def time(self) -> float:
        """Return seconds that never go back, as `call_at` counts them. With uvloop they stand still within a turn."""
        ...

    @property
    def precise(self) -> Callable[[], float]:
        """A function that returns seconds that never go back, for durations. Any thread may call it."""
        ...

    def now(self) -> datetime:
        """Return the time of day, in UTC."""
        ...

    def call_at(self, when: float, callback: Callable[..., object], *args: Any) -> Timer:
        """Call `callback` on the loop once `time` has reached `when`."""
        ...


class RealClock:
    """The running loop's clock, and the system's clocks."""

    def __init__(self) -> None:
        self.precise: Callable[[], float] = monotonic
        self.now: Callable[[], datetime] = partial(datetime.now, UTC)

    def time(self) -> float:
        return asyncio.get_running_loop().time()

    def call_at(self, when: float, callback: Callable[..., object], *args: Any) -> Timer:
        return asyncio.get_running_loop().call_at(when, callback, *args)


REAL: Final = RealClock()


async def sleep(clock: Clock, seconds: float) -> None:
    """Return after `seconds` of the clock's time."""
    over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    timer = clock.call_at(clock.time() + seconds, _end, over)
    try:
        await over
    finally:
        timer.cancel()


def _end(waiting: "asyncio.Future[None]") -> None:
    if not waiting.done():  # who waits may be cancelled in the turn in which the time is over
        waiting.set_result(None)


class Countdown(Generic[T]):
    """Calls `due` with each item that was added `seconds` ago and not removed since."""

    def __init__(self, seconds: float, due: Callable[[T], None], clock: Clock = REAL) -> None:
        self.seconds = seconds
        self._due = due
        self._ends: dict[T, float] = {}  # the next to end first, since all have the same time
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
