"""Steps: what is done in a transaction, written once as a generator of statements, for drivers that await and others.

A generator yields a statement with its parameters and is sent the rows.
"""

from collections.abc import Awaitable, Callable, Generator
from typing import TypeAlias, TypeVar

from .statements import Params, Row

T = TypeVar("T")
Steps: TypeAlias = Generator[tuple[str, Params], list[Row], T]
Execute: TypeAlias = Callable[[str, Params], list[Row]]
ExecuteAsync: TypeAlias = Callable[[str, Params], Awaitable[list[Row]]]


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
