"""Waits that end with a connection or channel: every loss is one kind of error, and no wait is without end."""

import asyncio
from collections.abc import Awaitable
from types import TracebackType
from typing import Any, Protocol, TypeVar

from ...telemetry import mark_heard
from .errors import explain

T = TypeVar("T")

_CANCEL_AGAIN = 0.05  # seconds until a cancellation that was swallowed (see `heed_cancellation`) is tried again


class Closable(Protocol):
    """A connection or channel. Each `closing` is a new future, done with the error that closed it."""

    @property
    def closing(self) -> "asyncio.Future[None]": ...


class LostAsError:
    """aiormq ends whoever waits on a lost channel with `CancelledError`; within this that is a `ConnectionError`,
    unless somebody really cancelled this task."""

    __slots__ = ()

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None and issubclass(kind, asyncio.CancelledError):
            task = asyncio.current_task()
            if task is not None and not task.cancelling():
                raise ConnectionError("the connection was lost") from None


lost_as_error = LostAsError()


async def while_open(closable: Closable, doing: Awaitable[T]) -> T:
    """Await `doing`, but no longer than the connection or channel lives: a frame queued for a dead writer would wait
    for ever, and an answer that a lost connection will not bring, for all of its time-out.

    Raises `ConnectionError` if it is closed first.
    """
    task, closing = asyncio.ensure_future(doing), closable.closing
    task.add_done_callback(mark_heard)  # the loss of the connection reports it
    either: set[asyncio.Future[Any]] = {task, closing}
    try:
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ConnectionError(f"it was closed: {await why_closed(closable)}")
    finally:
        closing.cancel()
        while not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=_CANCEL_AGAIN)


async def why_closed(closable: Closable) -> str:
    """Wait until the connection or channel is closed; return why."""
    try:
        await closable.closing
    except asyncio.CancelledError:
        if (task := asyncio.current_task()) is not None and task.cancelling():
            raise
        return "closed"
    except BaseException as error:  # noqa: BLE001 (aiormq hands on whatever ended its reader)
        return explain(error)
    return "closed"
