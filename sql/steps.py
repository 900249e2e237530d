"""Steps: what is done in a transaction, written once as a generator of statements, for drivers that await and others.

A generator yields a statement with its parameters and is sent the rows.
"""

import asyncio
from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeAlias, TypeVar

from ..telemetry import mark_heard
from .statements import Params, Row

_TO_END = 1.0  # seconds in which a thread gives its connection back, once its caller is cancelled

T = TypeVar("T")
Steps: TypeAlias = Generator[tuple[str, Params], list[Row], T]
Execute: TypeAlias = Callable[[str, Params], list[Row]]
ExecuteAsync: TypeAlias = Callable[[str, Params], Awaitable[list[Row]]]


def nothing() -> Steps[None]:
    """Take no step."""
    yield from ()


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
