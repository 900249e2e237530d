"""A thread that notices when the event loop stands still, and says where."""

import asyncio
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeAlias

from .facts import Emit, LoopBlocked, LoopTurned
from .supervision import keep_turning

_FRAMES = 25

Task: TypeAlias = "asyncio.Task[Any] | None"


class Watchdog:
    """A thread that emits one `LoopBlocked` each time the loop has not turned for `limit` seconds; the loop itself
    cannot. While the loop turns, it emits a `LoopTurned` a few times a second.

    `event_of` returns the fields of `LoopBlocked` that name the event a task handles."""

    def __init__(self, limit: float, emit: Emit, event_of: Callable[[Task], dict[str, str]] = lambda task: {}) -> None:
        self._limit = limit
        self._period = min(limit / 4, 0.25)
        self._emit = emit
        self._event_of = event_of
        self._beat = time.monotonic()
        self._stopped = threading.Event()
        self._watching = False
        self._timer: asyncio.TimerHandle | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Watch `loop`; call it on the loop's own thread."""
        self._watching = True
        self._beat = time.monotonic()
        self._timer = loop.call_later(self._period, self._turn, loop)
        watched = threading.get_ident()
        watch = partial(keep_turning, "watchdog", partial(self._watch, loop, watched), self._emit)
        threading.Thread(target=watch, name="holdfast-watchdog", daemon=True).start()

    def still(self) -> float:
        """Return for how many seconds the loop has not turned; 0 where it is not watched. Any thread may ask."""
        return max(0.0, time.monotonic() - self._beat - self._period) if self._watching else 0.0

    def stop(self) -> None:
        self._watching = False
        self._stopped.set()
        if self._timer is not None:
            self._timer.cancel()

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        lag, self._beat = self.still(), time.monotonic()
        self._timer = loop.call_later(self._period, self._turn, loop)
        self._emit(LoopTurned(lag))

    def _watch(self, loop: asyncio.AbstractEventLoop, watched: int) -> None:
        reported = 0.0
        while not self._stopped.wait(self._period):
            beat = self._beat
            still = time.monotonic() - beat - self._period
            if still >= self._limit and beat != reported:
                reported = beat
                task = _task(loop)
                name = "no task" if task is None else task.get_name()
                self._emit(LoopBlocked(still, name, _stack(watched), **self._event_of(task)))


def _stack(thread: int) -> str:
    frame = sys._current_frames().get(thread)
    return "".join(traceback.format_stack(frame, limit=_FRAMES)) if frame is not None else "the thread is gone"


def _task(loop: asyncio.AbstractEventLoop) -> Task:
    with suppress(RuntimeError):
        return asyncio.current_task(loop)
    return None
