"""Steps: what is done in a transaction, written once as a generator of statements, for drivers that await and others.

A generator yields a statement with its parameters and is sent the rows.
"""

import asyncio
from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeAlias, TypeVar

from ..telemetry import mark_heard
from .statements import Params, Row

_LIMITS = (
    "select set_config('idle_in_transaction_session_timeout', cast(:limit as text), true), "
    "set_config('tcp_user_timeout', cast(:limit as text), true)"
)
_TO_END = 1.0  # seconds in which a thread gives its connection back, once its caller is cancelled

T = TypeVar("T")
Steps: TypeAlias = Generator[tuple[str, Params], list[Row], T]
Execute: TypeAlias = Callable[[str, Params], list[Row]]
ExecuteAsync: TypeAlias = Callable[[str, Params], Awaitable[list[Row]]]


def nothing() -> Steps[None]:
    """Take no step."""
    yield from ()


def bounded(steps: Steps[T], dialect: str, seconds: float) -> Steps[T]:
    """Take the steps in a transaction that PostgreSQL ends where its process is silent for `seconds`, or takes in
    nothing of what is sent to it.

    A process that is frozen or cut off would keep the rows that it has locked, and all others would wait for them.
    """
    if dialect == "postgresql":
        yield _LIMITS, {"limit": str(round(1000 * seconds))}
    return (yield from steps)


def read_committed(steps: Steps[T], dialect: str) -> Steps[T]:
    """Take the steps in a transaction in which PostgreSQL looks anew for each of them, whatever the user's default is:
    what has committed since the transaction began is seen."""
    if dialect == "postgresql":
        yield "set transaction isolation level read committed", {}
    return (yield from steps)


async def play(steps: Steps[T], execute: ExecuteAsync) -> T:
    """Take the steps one by one. Returns what the generator returns."""
    try:
        statement = next(steps)
        while True:
            statement = steps.send(await execute(*statement))
    except StopIteration as end:
        result: T = end.value
        return result


def play_in_thread(steps: Steps[T], execute: Execute) -> T:
    """Take the steps one by one, without a loop. Returns what the generator returns."""
    try:
        statement = next(steps)
        while True:
            statement = steps.send(execute(*statement))
    except StopIteration as end:
        result: T = end.value
        return result


async def in_thread(function: Callable[..., T], *arguments: Any) -> T:
    """Call a function in a thread. Returns what it returns.

    A caller that is cancelled waits for the thread, for a second at most: the engine or the pool that its connection
    goes back to may be disposed of next.
    """
    running = asyncio.ensure_future(asyncio.to_thread(function, *arguments))
    try:
        await asyncio.wait([running])
    except asyncio.CancelledError:
        running.add_done_callback(mark_heard)
        await asyncio.wait([running], timeout=_TO_END)
        running.cancel()
        raise
    return running.result()
