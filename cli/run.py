"""`holdfast run`: a worker, its log and its signals."""

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from ..config import environment, unknown_variables
from ..consumer import Worker
from ..consumer.runtime import HANDLER_THREAD
from ..events import HoldfastError
from ..telemetry import FactLog, SettingUnknown, WorkerFailed, configure_logging
from .load import load_worker

T = TypeVar("T")

_LAST_WORDS = 1.0  # seconds that handlers left behind have to end with the process


def run_worker(target: str, *, concurrency: int | None, only: tuple[str, ...]) -> int:
    """Run until a signal. Returns the exit code: 0 when drained, 1 when forced by a second signal or failed."""
    worker = load_worker(target)
    configure_logging(worker.settings.log)
    for line in unknown_variables(environment()):
        FactLog()(SettingUnknown(line))
    return run(until_signalled(worker, concurrency, only, http=True))


async def until_signalled(worker: Worker, concurrency: int | None, only: tuple[str, ...], *, http: bool) -> int:
    """Run on this process' signals: the first drains, the second ends it at once. Returns the exit code."""
    loop, threads = asyncio.get_running_loop(), ThreadPoolExecutor(thread_name_prefix=f"{HANDLER_THREAD}-to-thread")
    loop.set_default_executor(threads)  # of our own, to know whether one of its threads is stuck
    signals, code = 0, 1

    def stop() -> None:
        nonlocal signals
        signals += 1
        worker.stop(now=signals > 1)
        if signals > 1:  # a third one ends the process as if we were not there
            loop.remove_signal_handler(signal.SIGTERM)
            loop.remove_signal_handler(signal.SIGINT)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    try:
        await worker.run(only=only, concurrency=concurrency, http=http)
        code = 0 if signals < 2 else 1
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
    """As `asyncio.run`."""
    runner: Callable[[Coroutine[Any, Any, T]], T] = asyncio.run
    try:
        import uvloop
    except ImportError:
        pass
    else:
        runner = uvloop.run
    return runner(main)  # not within `except`: each failure of a handler would have the ImportError in its chain
