"""One timer for many things that have the same time each."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from types import TracebackType
from typing import Any, Generic, TypeVar

from .clock import REAL, Clock, Timer

T = TypeVar("T")


class Countdown(Generic[T]):
    """Calls `due` with each thing that was added `seconds` ago and not removed since."""

    def __init__(self, seconds: float, due: Callable[[T], None], clock: Clock = REAL) -> None:
        self.seconds = seconds
        self._due = due
        self._ends: OrderedDict[T, float] = OrderedDict()  # the next to end first, since all have the same time
        self._timer: Timer | None = None
        self._clock = clock

    def add(self, thing: T) -> None:
        self._ends[thing] = ends = self._clock.time() + self.seconds
        if self._timer is None:
            self._timer = self._clock.call_at(ends, self._look)

    def remove(self, thing: T) -> None:
        self._ends.pop(thing, None)

    def close(self) -> None:
        self._ends.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        self._timer = None
        now = self._clock.time()
        while self._ends:
            thing, ends = next(iter(self._ends.items()))
            if ends > now:
                self._timer = self._clock.call_at(ends, self._look)
                return
            del self._ends[thing]
            self._due(thing)


class Limits:
    """Time limits for blocks of code, as `asyncio.timeout` sets them, for many at once: one timer for each length."""

    def __init__(self) -> None:
        self._of: dict[float, Countdown[Limit]] = {}

    def limit(self, seconds: float) -> "Limit":
        """`with limits.limit(10): ...` raises `TimeoutError` where the block takes longer."""
        countdown = self._of.get(seconds)
        if countdown is None:
            countdown = self._of[seconds] = Countdown(seconds, _expire)
        return Limit(countdown)

    def close(self) -> None:
        for countdown in self._of.values():
            countdown.close()


class Limit:
    """One block under way."""

    __slots__ = ("_before", "_countdown", "_expired", "_task")

    def __init__(self, countdown: Countdown["Limit"]) -> None:
        self._countdown = countdown
        self._expired = False
        self._before = 0  # how often the task was cancelled already
        self._task: asyncio.Task[Any] | None = None

    def __enter__(self) -> None:
        self._task = task = asyncio.current_task()
        if task is not None:
            self._before = task.cancelling()
        self._countdown.add(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._countdown.remove(self)
        if self._expired and self._task is not None:
            others = self._task.uncancel() > self._before
            if kind is asyncio.CancelledError and not others:
                raise TimeoutError from error

    def expire(self) -> None:
        self._expired = True
        if self._task is not None:
            self._task.cancel()


def _expire(limit: Limit) -> None:
    limit.expire()
