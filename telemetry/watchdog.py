"""A thread that notices when the event loop stands still, and says where."""

import asyncio
import sys
import threading
import time
import traceback
from contextlib import suppress

from .facts import Emit, LoopBlocked

_FRAMES = 25


class Watchdog:
    """Emits one `LoopBlocked` each time the loop has not turned for `limit` seconds. It is emitted from the
    watching thread: the loop cannot do it."""

    def __init__(self, limit: float, emit: Emit) -> None:
        self._limit = limit
        self._emit = emit
        self._beat = time.monotonic()
        self._stopped = threading.Event()
        self._timer: asyncio.TimerHandle | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Watch `loop`; call it on the loop's own thread."""
        self._turn(loop)
        watched = threading.get_ident()
        threading.Thread(target=self._watch, args=(loop, watched), name="holdfast-watchdog", daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()
        if self._timer is not None:
            self._timer.cancel()

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        self._beat = time.monotonic()
        self._timer = loop.call_later(self._limit / 4, self._turn, loop)

    def _watch(self, loop: asyncio.AbstractEventLoop, watched: int) -> None:
        told = 0.0
        while not self._stopped.wait(self._limit / 4):
            beat = self._beat
            still = time.monotonic() - beat - self._limit / 4
            if still >= self._limit and beat != told:
                told = beat
                self._emit(LoopBlocked(still, _task_name(loop), _stack(watched)))


def _stack(thread: int) -> str:
    frame = sys._current_frames().get(thread)
    return "".join(traceback.format_stack(frame, limit=_FRAMES)) if frame is not None else "the thread is gone"


def _task_name(loop: asyncio.AbstractEventLoop) -> str:
    with suppress(RuntimeError):
        task = asyncio.current_task(loop)
        return task.get_name() if task is not None else "no task"
    return "unknown"
