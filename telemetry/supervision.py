"""The last guard of tasks and threads that are to last: an error that nobody foresaw is reported, and they go on."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from .facts import Emit, Lasting, TaskFailed

AGAIN = 1.0
"""Seconds until work that failed is begun again."""

T = TypeVar("T")


async def keep_running(name: Lasting, work: Callable[[], Awaitable[T]], emit: Emit) -> T:
    """Return what `work` returns. Whenever it raises, report that, and begin it again after a pause.

    Of cancellations only that of the running task ends it: a library may let one out that is not ours.
    """
    while True:
        try:
            return await work()
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 (the last guard)
            heed_cancellation()
            report(name, error, emit)
        await asyncio.sleep(AGAIN)


def keep_turning(name: Lasting, work: Callable[[], T], emit: Emit) -> T:
    """Do in a thread what `keep_running` does in a task."""
    while True:
        try:
            return work()
        except Exception as error:  # noqa: BLE001 (the last guard)
            report(name, error, emit)
        time.sleep(AGAIN)


def report(name: Lasting, error: BaseException, emit: Emit) -> None:
    """Emit the fact that work failed, which is begun again. A listener that raises changes nothing."""
    with suppress(Exception):
        emit(TaskFailed(name, error, AGAIN))


async def finish(work: Coroutine[Any, Any, T]) -> T:
    """Await work until its end, however often this task is cancelled. The cancellation is raised at that end."""
    task, cancellation = asyncio.ensure_future(work), None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancellation = error
    if cancellation is not None:
        mark_heard(task)
        raise cancellation
    return task.result()


def heed_cancellation() -> None:
    """Raise `CancelledError` if this task was cancelled and a library swallowed that. Drivers may. Up to Python 3.11 so
    does `wait_for`, which aiormq uses, if what it waits for ends at the same time."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def mark_heard(future: "asyncio.Future[Any]") -> None:
    """Mark what a future raised as heard, so that asyncio does not report it. It is called once the future is done."""
    if not future.cancelled():
        future.exception()
