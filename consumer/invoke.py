"""Running the user's function: on the loop or in a thread, within its time, whatever it raises."""

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

from ..events import HoldfastError
from .context import Context
from .handler import Handler, HandlerSpec, Middleware

CANCEL_GRACE = 5.0
"""Seconds a handler has to end after it was cancelled; then it is abandoned."""


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


async def invoke(handler: Handler, event: Any, context: Context, timeout: float) -> None:
    """Run a handler to its end, at most `timeout` seconds.

    It runs in a task of its own, so that one which ignores its cancellation can be left behind: it is then
    found in `context.lingering`. Raises what the handler raised, `HandlerTimeout`, `HandlerExit`.
    """
    task = asyncio.create_task(_contained(handler, event, context), name=f"{context.queue} {context.event_id}")
    try:
        done, _ = await asyncio.wait({task}, timeout=timeout)
    except asyncio.CancelledError:
        await _cancel(task, context)
        raise
    if not done:
        await _cancel(task, context)
        raise HandlerTimeout(f"the handler did not finish within {timeout:g} s")
    if task.cancelled():
        raise HandlerExit("the handler was cancelled from within")
    task.result()


async def _contained(handler: Handler, event: Any, context: Context) -> None:
    try:
        await handler(event, context)
    except (SystemExit, KeyboardInterrupt, GeneratorExit) as error:
        raise HandlerExit(f"the handler raised {type(error).__name__}({error})") from error


async def _cancel(task: "asyncio.Task[None]", context: Context) -> None:
    task.cancel()
    done, _ = await asyncio.wait({task}, timeout=CANCEL_GRACE)
    if not done:
        context.lingering.append(task)
    elif not task.cancelled():
        task.exception()  # it is told of its time-out alone


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
        except asyncio.CancelledError:
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
