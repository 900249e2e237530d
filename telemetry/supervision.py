"""The last guard of tasks and threads that are to last: an error that nobody foresaw is reported, and they go on."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any, TypeVar

from .facts import Emit, Lasting, TaskFailed

AGAIN = 1.0
"""Seconds until work that failed is begun again."""

_TO_END = 2.0  # seconds in which a task that was cancelled may end

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


async def finish(work: Awaitable[T]) -> T:
    """Await work until its end, however often this task is cancelled. The cancellation is raised at that end."""
    task, cancellation = asyncio.ensure_future(work), None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancellation = error
    if cancellation is not None:
        raise cancellation from (None if task.cancelled() else task.exception())
    return task.result()


async def end(tasks: Iterable["asyncio.Task[Any]"], *, patience: float) -> None:
    """Return once the tasks have ended. Those that have not after so many seconds are cancelled, and left to themselves
    where a driver does not let them end: this always returns."""
    running = {task for task in tasks if not task.done()}
    for seconds in (patience, _TO_END):
        if running:
            _, running = await asyncio.wait(running, timeout=seconds)
        for task in running:
            task.cancel()


async def in_time(work: Awaitable[T], seconds: float | None) -> T:
    """Return what `work` returns. Raises `TimeoutError` after so many seconds, also where a driver does not let it end.

    It has a task of its own, which is cancelled with this one."""
    task = asyncio.ensure_future(work)
    task.add_done_callback(mark_heard)
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
    finally:
        await end({task}, patience=0)
    if not done:
        raise TimeoutError(f"no answer within {seconds:g} s")
    return task.result()


def cancellations() -> int:
    """Return how often this task was cancelled. A `TaskGroup` of the caller that failed may have left one: up to Python
    3.12 it does, and nobody asks for it any more."""
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


def heed_cancellation(before: int = 0) -> None:
    """Raise `CancelledError` if this task was cancelled more often than `before`, and a library swallowed that. Drivers
    may. Up to Python 3.11 so does `wait_for`, which aiormq uses, if what it waits for ends at the same time."""
    if cancellations() > before:
        raise asyncio.CancelledError


def mark_heard(future: "asyncio.Future[Any]") -> None:
    """Mark what a future raised as heard, so that asyncio does not report it. It is called once the future is done."""
    if not future.cancelled():
        future.exception()
