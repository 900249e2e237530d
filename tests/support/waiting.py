"""Waiting for what will happen, with a deadline; never for time to pass."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

DEADLINE = 20.0
"""Seconds a test waits for something that must happen."""

T = TypeVar("T")


class Arrivals(Generic[T]):
    """Collects what a callback is called with: give it as the callback, then await what came."""

    def __init__(self) -> None:
        self.all: list[T] = []
        self._taken = 0
        self._changed = asyncio.Event()

    def __call__(self, thing: T) -> None:
        self.all.append(thing)
        self._changed.set()

    @property
    def waiting(self) -> int:
        """How many came that nobody awaited yet."""
        return len(self.all) - self._taken

    async def next(self) -> T:
        """The next one in order of arrival."""
        return (await self.take(1))[0]

    async def take(self, count: int) -> list[T]:
        """The next `count`, in order of arrival."""
        await self._until(lambda: self.waiting >= count)
        taken = self.all[self._taken : self._taken + count]
        self._taken += count
        return taken

    async def first(self, wanted: Callable[[T], bool]) -> T:
        """The first, of all that came or will come, that is wanted."""
        await self._until(lambda: any(map(wanted, self.all)))
        return next(thing for thing in self.all if wanted(thing))

    async def _until(self, holds: Callable[[], bool]) -> None:
        try:
            async with asyncio.timeout(DEADLINE):
                while not holds():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"not within {DEADLINE:g} s; {len(self.all)} came: {self.all[-5:]}") from None


async def eventually(ask: Callable[[], Awaitable[T]], expected: T) -> None:
    """Ask until the answer is the expected one: for the state of a server, which tells nobody of a change.

    The only place where tests wait without a signal. Raises `AssertionError` with the last answer.
    """
    answer: T | None = None
    try:
        async with asyncio.timeout(DEADLINE):
            while (answer := await ask()) != expected:
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"expected {expected!r} within {DEADLINE:g} s, last answer {answer!r}") from None
