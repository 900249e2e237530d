"""Time that passes on request alone."""

import heapq
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any


class VirtualClock:
    """Stands still between two calls of `advance_to`, on any event loop. See `broker.Clock`."""

    def __init__(self) -> None:
        self._epoch = datetime.now(UTC)
        self._seconds = 0.0
        self._alarms: list[tuple[float, int, Alarm]] = []
        self._numbers = count()

    def time(self) -> float:
        return self._seconds

    @property
    def precise(self) -> Callable[[], float]:
        return self.time

    def now(self) -> datetime:
        return self._epoch + timedelta(seconds=self._seconds)

    def call_at(self, when: float, callback: Callable[..., object], *args: Any) -> "Alarm":
        alarm = Alarm(when, callback, args)
        heapq.heappush(self._alarms, (when, next(self._numbers), alarm))
        return alarm

    def next_due(self) -> float | None:
        """When something happens next, or None where nothing was asked for."""
        while self._alarms and self._alarms[0][2].cancelled:
            heapq.heappop(self._alarms)
        return max(self._alarms[0][0], self._seconds) if self._alarms else None

    def advance_to(self, when: float) -> None:
        """Let time pass; what falls due on the way is called in its order, each at its own time."""
        while (due := self.next_due()) is not None and due <= when:
            self._seconds = due
            heapq.heappop(self._alarms)[2].ring()
        self._seconds = max(self._seconds, when)


class Alarm:
    """See `broker.clock.Timer`."""

    __slots__ = ("_args", "_callback", "_when", "cancelled")

    def __init__(self, when: float, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        self._when = when
        self._callback = callback
        self._args = args
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True

    def when(self) -> float:
        return self._when

    def ring(self) -> None:
        self._callback(*self._args)
