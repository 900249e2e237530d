"""Waits that end with a connection or channel: every loss is one kind of error, and no wait is without end."""

import asyncio
from collections.abc import Awaitable
from types import TracebackType
from typing import Any, Protocol, TypeVar

from ...telemetry import cancellations, heed_cancellation, mark_heard
from .errors import explain

T = TypeVar("T")

_CANCEL_AGAIN = 0.05  # seconds until a cancellation that was swallowed (see `heed_cancellation`) is tried again


class Closable(Protocol):
    """A connection or channel. Each `closing` is a new future, done with the error that closed it."""

    @property
    def closing(self) -> "asyncio.Future[None]": ...


class lost_as_error:  # noqa: N801 (it is used as a statement)
    """aiormq ends whoever waits on a lost channel with `CancelledError`; within this that is a `ConnectionError`,
    unless somebody really cancelled this task."""

    __slots__ = ("_before",)

    def __enter__(self) -> None:
        self._before = cancellations()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None and issubclass(kind, asyncio.CancelledError) and cancellations() <= self._before:
            raise ConnectionError("the connection was lost") from None


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


def why_lost(closed: "asyncio.Future[None]") -> Exception:
    """Return the error that closed a channel, by its future that is done. Where the program closed the connection, that
    is a cancellation, of nobody who waits."""
    error = None if closed.cancelled() else closed.exception()
    return error if isinstance(error, Exception) else ConnectionError("the channel was closed")


async def why_closed(closable: Closable) -> str:
    """Wait until the connection or channel is closed; return why."""
    before = cancellations()
    try:
        await closable.closing
    except asyncio.CancelledError:
        heed_cancellation(before)
        return "closed"
    except BaseException as error:  # noqa: BLE001 (aiormq hands on whatever ended its reader)
        return explain(error)
    return "closed"
