"""Time as a value that is passed in: the running loop's and the system's by default, a virtual one in tests."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Protocol


class Timer(Protocol):
    """A call that was asked for."""

    def cancel(self) -> None: ...

    def when(self) -> float:
        """Return the clock's time at which it is due."""
        ...


class Clock(Protocol):
    """The source of time for waits, ages and time limits."""

    def time(self) -> float:
        """Return seconds that never go back."""
        ...

    def now(self) -> datetime:
        """Return the time of day, in UTC."""
        ...

    def call_at(self, when: float, callback: Callable[..., object], *args: Any) -> Timer:
        """Call `callback` on the loop once `time` has reached `when`."""
        ...


class RealClock:
    """The running loop's clock, and the system's time of day."""

    def time(self) -> float:
        return asyncio.get_running_loop().time()

    def now(self) -> datetime:
        return datetime.now(UTC)

    def call_at(self, when: float, callback: Callable[..., object], *args: Any) -> Timer:
        return asyncio.get_running_loop().call_at(when, callback, *args)


REAL = RealClock()


async def sleep(clock: Clock, seconds: float) -> None:
    """Return after `seconds` of the clock's time."""
    over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    timer = clock.call_at(clock.time() + seconds, over.set_result, None)
    try:
        await over
    finally:
        timer.cancel()
