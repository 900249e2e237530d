"""`holdfast run`: a worker, its log and its signals."""

import asyncio
import gc
import logging
import os
import sys
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from ..consumer import Worker
from ..consumer.runtime import HANDLER_THREAD
from ..events import HoldfastError
from ..telemetry import FactLog, WorkerFailed, configure_logging
from .load import load_worker
from .signals import end_when_signalled, heed, heed_no_more

T = TypeVar("T")

_LAST_WORDS = 1.0  # seconds that handlers left behind have to end with the process


def run_worker(target: str, *, concurrency: int | None, only: tuple[str, ...]) -> int:
    """Run until a signal. Returns the exit code: 0 when drained, 1 when forced by a second signal or failed."""
    end_when_signalled()
    worker = load_worker(target)
    configure_logging(worker.settings.log)
    stopping = Stopping(worker)

    async def until_signalled() -> int:
        heed(stopping.hear)
        return await run_to_end(worker, stopping, concurrency, only, http=True)

    return run(until_signalled())


class Stopping:
    """How often a worker was told to stop: once, it drains; twice, it ends at once. A third time ends the process as
    if we were not there."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._was_told = False
        self.at_once = False
        """Whether it was told twice."""

    def hear(self, counts: bool = True) -> None:
        """A signal came. Where it does not count, it never means at once."""
        if counts and self._was_told:
            self.end_at_once()
        elif not self._was_told:
            self._was_told = True
            self._worker.stop()

    def end_at_once(self) -> None:
        """End it, whatever came before. Call it on the loop."""
        self.at_once = True
        self._worker.stop(now=True)
        heed_no_more()


async def run_to_end(
    worker: Worker, stopping: Stopping, concurrency: int | None, only: tuple[str, ...], *, http: bool
) -> int:
    """Run until the worker was told to stop. Returns the exit code: 0 when drained."""
    loop, threads = asyncio.get_running_loop(), ThreadPoolExecutor(thread_name_prefix=f"{HANDLER_THREAD}-to-thread")
    loop.set_default_executor(threads)  # of our own, to know whether one of its threads is stuck
    code = 1
    try:
        await worker.run(only=only, concurrency=concurrency, http=http)
        code = int(stopping.at_once)
    except (HoldfastError, ExceptionGroup):  # main() has a line for these
        raise
    except Exception as error:  # noqa: BLE001 (the user's lifespan)
        FactLog()(WorkerFailed(worker.name, error))
    threads.shutdown(wait=False, cancel_futures=True)
    if await _left_behind():
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


async def _left_behind() -> bool:
    """Whether handlers that were abandoned run on. All is settled or given back by now, and neither a task that
    ignores its cancellation nor a thread can be ended: Python would wait for them for ever."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if tasks:
        _, tasks = await asyncio.wait(tasks, timeout=_LAST_WORDS)
    threads = [thread for thread in threading.enumerate() if thread.name.startswith(HANDLER_THREAD)]
    for thread in threads:
        thread.join(_LAST_WORDS / len(threads))
    return bool(tasks) or any(thread.is_alive() for thread in threads)


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run as `asyncio.run` does. What was imported is left out of garbage collection, which held everything up for
    0.2 s at a time."""
    gc.freeze()
    runner: Callable[[Coroutine[Any, Any, T]], T] = asyncio.run
    try:
        import uvloop
    except ImportError:
        pass
    else:
        runner = uvloop.run
    return runner(main)  # not within `except`: each failure of a handler would have the ImportError in its chain
