"""aiormq where a connection or channel may be lost: every loss is one kind of error, and no wait is without end."""

import asyncio
from collections.abc import Awaitable
from types import TracebackType
from typing import TypeVar

import aiormq
from aiormq import Channel, Connection
from pamqp.exceptions import PAMQPException

from .explain import explain
from .wire import TappedConnection

T = TypeVar("T")

_CLOSING: set[asyncio.Future[None]] = set()  # what closes, with somebody waiting or not

_CANCEL_AGAIN = 0.05  # seconds until a cancellation that was swallowed (see `heed_cancellation`) is tried again

CONNECTION_ERRORS = (aiormq.exceptions.AMQPError, OSError, TimeoutError, RuntimeError, PAMQPException, EOFError)
"""What aiormq raises when a connection or channel is unusable (`ChannelInvalidStateError` is a RuntimeError)."""


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


def heed_cancellation() -> None:
    """Raises `CancelledError` where this task was cancelled and that was swallowed: up to Python 3.11 `wait_for`, which
    aiormq uses, does so if what it waits for ends at the same time."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def close_quietly(thing: Connection | Channel, timeout: float) -> None:
    """Close what may be lost already, within `timeout` seconds.

    A close that takes longer is not cancelled. For a channel aiormq would ask a second time, which ends the connection
    once the broker has answered the first; for a connection it would wait until the peer has read all that was written,
    which one that is blocked does not: its socket is dropped.
    """
    closing = asyncio.ensure_future(thing.close())
    _CLOSING.add(closing)
    closing.add_done_callback(_closed)
    _, late = await asyncio.wait({closing}, timeout=timeout)
    if late and isinstance(thing, TappedConnection):
        thing.wire.abort()
        await asyncio.wait({closing}, timeout=timeout)


def _closed(closing: asyncio.Future[None]) -> None:
    _CLOSING.discard(closing)
    if not closing.cancelled():
        closing.exception()  # it is closed, one way or the other


async def while_open(thing: Connection | Channel, doing: Awaitable[T]) -> T:
    """Await `doing`, but no longer than `thing` lives: a frame queued for a dead writer would wait for ever, and an
    answer that a lost connection will not bring, for all of its time-out.

    Raises `ConnectionError` when it is closed first.
    """
    task, closing = asyncio.ensure_future(doing), thing.closing
    try:
        await asyncio.wait({task, closing}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ConnectionError(f"it was closed: {await why_closed(thing)}")
    finally:
        closing.cancel()
        while not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=_CANCEL_AGAIN)
        if not task.cancelled():
            task.exception()  # looked at: it is told by the loss of the connection


async def written(channel: Channel, frame: Awaitable[None]) -> bool:
    """Await the writing of a frame that has no answer. False where the channel is lost."""
    try:
        with lost_as_error:
            await (while_open(channel, frame) if channel.connection.write_queue.full() else frame)
    except CONNECTION_ERRORS:
        return False
    return True


async def why_closed(thing: Connection | Channel) -> str:
    """Wait until it is closed; returns why."""
    try:
        await thing.closing
    except asyncio.CancelledError:
        if (task := asyncio.current_task()) is not None and task.cancelling():
            raise
        return "closed"
    except BaseException as error:  # noqa: BLE001 (aiormq hands on whatever ended its reader)
        return explain(error)
    return "closed"
