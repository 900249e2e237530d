"""What a handler returns: work that is still to be done is done, or refused. Any other value means nothing.

This module is not compiled: the state of a coroutine can be asked of Python's own alone.
"""

import asyncio
import concurrent.futures
import inspect
from collections.abc import AsyncGenerator, Coroutine, Generator, Iterable
from typing import Any

from ..events import Event
from .context import Context, note_call
from .errors import WorkNotDone
from .handler import Handler


async def finish(returned: Any) -> Any:
    """Await what a handler returned, until nothing is left to await. Return the rest, which means nothing to Holdfast.

    Raises `WorkNotDone` for a value with which something should have been done, and whatever the awaited work raises.
    """
    while True:
        if isinstance(returned, concurrent.futures.Future):
            returned = asyncio.wrap_future(returned)
        if not inspect.isawaitable(returned):
            break
        returned = await returned
    refuse_work(returned)
    return returned


def refuse_work(returned: Any) -> None:
    """Raise `WorkNotDone` for a value with which something should have been done."""
    if isinstance(returned, Event):
        raise WorkNotDone(f"the handler returned the event {type(returned).__name__}; publish it with ctx.publish")
    if isinstance(returned, list | tuple) and any(isinstance(one, Event) for one in returned):
        raise WorkNotDone("the handler returned a list of events; publish each with ctx.publish")
    if isinstance(returned, BaseException) or (isinstance(returned, type) and issubclass(returned, BaseException)):
        raise WorkNotDone(f"the handler returned the exception {returned!r:.200}; raise it")
    if isinstance(returned, Generator | AsyncGenerator):
        raise WorkNotDone("the handler returned a generator, and nothing of it ran; a handler has no `yield`")


def watched(handler: Handler) -> Handler:
    """Return the handler as middleware is given it: middleware may forget to await it."""

    async def run(event: Any, context: Context) -> Any:
        returned = await handler(event, context)
        return returned if returned is None else await finish(returned)

    def call(event: Any, context: Context) -> Any:
        note_call(context, running := run(event, context))
        return running

    return call


def check_finished(calls: Iterable[Coroutine[Any, Any, Any]]) -> None:
    """Raise `WorkNotDone` where middleware called the handler and returned before it had ended."""
    unfinished = [call for call in calls if inspect.getcoroutinestate(call) != inspect.CORO_CLOSED]
    for call in unfinished:
        if inspect.getcoroutinestate(call) == inspect.CORO_CREATED:
            call.close()
    if unfinished:
        raise WorkNotDone("middleware called the handler and did not await it")
