"""`sleep`, by a clock whose timers are run by hand."""

import asyncio
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from builders import NOON

from holdfast.broker.clock import Timer, sleep


class ByHand:
    """Notes what is due, instead of calling it."""

    precise = staticmethod(time.monotonic)

    def __init__(self) -> None:
        self.due = list[Callable[[], object]]()

    def time(self) -> float:
        return 0.0

    def now(self) -> datetime:
        return NOON

    def call_at(self, when: float, callback: Callable[..., object], *args: Any) -> Timer:
        self.due.append(lambda: callback(*args))
        return asyncio.get_running_loop().call_later(3600, callback, *args)


async def test_a_sleep_that_is_cancelled_as_its_time_is_over_ends_in_quiet() -> None:
    clock = ByHand()
    sleeping = asyncio.create_task(sleep(clock, 3600))
    await asyncio.sleep(0)

    sleeping.cancel()
    clock.due[0]()

    with pytest.raises(asyncio.CancelledError):
        await sleeping
