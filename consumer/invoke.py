"""Running the user's function: on the loop or in a thread, within its time, whatever it raises."""

import asyncio
import contextvars
from asyncio import CancelledError, Task
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress
from typing import Any

from ..broker import Countdown
from ..events import HoldfastError
from .context import Context
from .handler import Handler, HandlerSpec, Middleware
from .job import Job

CANCEL_GRACE = 5.0
"""Seconds a handler has to end after it was cancelled for its time; then it is left to itself."""


class HandlerTimeout(HoldfastError, TimeoutError):
    """The handler did not finish within its time."""


class HandlerExit(HoldfastError):
    """The handler raised what would end the process (SystemExit, KeyboardInterrupt) or cancelled itself."""


def compose(spec: HandlerSpec, middleware: tuple[Middleware, ...], threads: Executor) -> Handler:
    """The user's function made uniform, inside the middleware; the first of those is the outermost."""
    handler = _on_loop(spec) if spec.is_async else _in_thread(spec, threads)
    for wrap in reversed(middleware):
        handler = wrap(handler)
    return handler


async def invoke(handler: Handler, event: Any, context: Context, job: Job, late: Countdown[Job]) -> None:
    """Run a handler to its end, within its time, in the task of its delivery.

    Raises what the handler raised, `HandlerTimeout`, `HandlerExit`; `CancelledError` where the worker stops.
    """
    task, error = job.task, None
    assert task is not None
    late.add(job)
    try:
        await handler(event, context)
    except (CancelledError, SystemExit, KeyboardInterrupt, GeneratorExit) as ending:
        error = ending
    except BaseException:
        if not task.cancelling():
            raise
    finally:
        late.remove(job)
    if error is not None or task.cancelling():
        raise await _reason(job, task, error, late.seconds) from error


async def _reason(job: Job, task: Task[None], error: BaseException | None, timeout: float) -> BaseException:
    """Why the handler ended: a worker that stops comes first, then the time; the rest it did itself."""
    if job.stopped == "stopping":
        return CancelledError()
    while task.uncancel():
        pass
    with suppress(CancelledError):  # one that was asked for and not yet raised
        await asyncio.sleep(0)
    if job.stopped == "late":
        job.stopped = None
        return HandlerTimeout(f"the handler did not finish within {timeout:g} s")
    if error is None or isinstance(error, CancelledError):
        return HandlerExit("the handler was cancelled from within")
    return HandlerExit(f"the handler raised {type(error).__name__}({error})")


def _on_loop(spec: HandlerSpec) -> Handler:
    function = spec.function
    if spec.takes_context:
        return function

    async def call(event: Any, _: Context) -> Any:
        return await function(event)

    return call


def _in_thread(spec: HandlerSpec, threads: Executor) -> Handler:
    function = spec.function

    async def call(event: Any, context: Context) -> Any:
        arguments = (event, context) if spec.takes_context else (event,)
        run = contextvars.copy_context().run
        future = asyncio.get_running_loop().run_in_executor(threads, run, _thread_safe, function, arguments)
        try:
            return await asyncio.shield(future)
        except CancelledError:
            if not future.done():
                context.lingering.append(future)  # a thread cannot be stopped
            raise

    return call


def _thread_safe(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """A future cannot carry every exception across threads."""
    try:
        return function(*arguments)
    except (SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration) as error:
        raise HandlerExit(f"the handler raised {type(error).__name__}({error})") from error
