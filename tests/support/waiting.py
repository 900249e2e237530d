"""Waits for a fact, a signal, a line of a log, or the state of a server, which signals none."""

import asyncio
import codecs
import inspect
import os
import select
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, TypeVar

from holdfast.telemetry import Fact, Settled

LIMIT = 60.0
"""Seconds that any wait may take before the test fails."""

T = TypeVar("T")
F = TypeVar("F")


class Bell:
    """A signal: rung whenever something changed, heard by those who wait for a condition."""

    def __init__(self, *others: "Bell") -> None:
        """`others` ring this one as well."""
        self._rung = asyncio.Event()
        self._joined: list[Bell] = []
        for other in others:
            other._joined.append(self)

    def ring(self) -> None:
        """Wake those who wait. Only the thread of their loop may call it."""
        self._rung.set()
        for bell in self._joined:
            bell.ring()

    async def until_true(
        self, holds: Callable[[], object], saw: Callable[[], object] = lambda: "nothing", *, within: float = LIMIT
    ) -> None:
        """Wait until the condition holds, looking whenever the bell rings. Fails with what `saw` returns."""
        try:
            async with asyncio.timeout(within):
                while not holds():
                    self._rung.clear()
                    await self._rung.wait()
        except TimeoutError:
            raise AssertionError(f"not within {within:g} s; saw {saw()}") from None


class Arrivals(Bell, Generic[T]):
    """Collects what a callback is called with: give it as the callback, then await what came."""

    def __init__(self) -> None:
        super().__init__()
        self.all: list[T] = []
        self._taken = 0

    def __call__(self, arrival: T) -> None:
        self.all.append(arrival)
        self.ring()

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
        return next(arrival for arrival in self.all if wanted(arrival))

    async def _until(self, holds: Callable[[], object]) -> None:
        await self.until_true(holds, lambda: f"{len(self.all)}: {self.all[-20:]}")


class Facts(Arrivals[Fact]):
    """Every fact so far; `until` waits for more. Give `record` to a worker as a listener."""

    def record(self, fact: Fact) -> None:
        self(fact)

    def of(self, kind: type[F], where: Callable[[F], bool] = lambda fact: True) -> list[F]:
        return [fact for fact in self.all if isinstance(fact, kind) and where(fact)]

    async def until(self, kind: type[F], where: Callable[[F], bool] = lambda fact: True, *, count: int = 1) -> list[F]:
        """Wait until `count` facts of a kind have happened. Fails with what did happen when the limit is over."""
        wanted: list[F] = []
        looked_at = 0

        def enough() -> bool:
            nonlocal looked_at
            fresh, looked_at = self.all[looked_at:], len(self.all)
            wanted.extend(fact for fact in fresh if isinstance(fact, kind) and where(fact))
            return len(wanted) >= count

        await self.until_true(enough, lambda: f"{len(wanted)} of {count} {kind.__name__}: {self.all[-20:]}")
        return wanted

    async def settled(self, outcome: str | None = None, *, count: int = 1) -> list[Settled]:
        return await self.until(Settled, lambda fact: outcome in (None, fact.outcome), count=count)


class Tally(Counter[T]):
    """Counts what a handler does; a test awaits a condition over the counts."""

    def __init__(self) -> None:
        super().__init__()
        self.bell = Bell()

    def __setitem__(self, key: T, count: int) -> None:
        super().__setitem__(key, count)
        self.bell.ring()

    async def until(self, holds: Callable[[], object]) -> None:
        """Wait until the condition holds, looking whenever a count changes."""
        await self.bell.until_true(holds, lambda: self)


class Log:
    """What a process writes, read as it comes. Start the process with `output`, then `follow` it."""

    def __init__(self) -> None:
        self._pipe, self.output = os.pipe()
        os.set_blocking(self._pipe, False)
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._text, self._ended = "", False
        self._changed = threading.Condition()

    def follow(self) -> None:
        """Read to the end, which comes when the process and all that it started are gone."""
        os.close(self.output)
        threading.Thread(target=self._follow, daemon=True).start()

    @property
    def text(self) -> str:
        """All that was written until now."""
        with self._changed:
            self._read()
            return self._text

    def until(self, holds: Callable[[str], object]) -> None:
        """Wait until the text is so, looking whenever there is more of it. Fails with it when it ends, or the limit is
        over."""
        deadline = time.monotonic() + LIMIT
        while not holds(text := self.text):
            with self._changed:
                more = self._changed.wait_for(lambda seen=text: self._text != seen or self._ended, _left(deadline))  # type: ignore[misc]
                why = f"not within {LIMIT:g} s" if not more else "it ended"
                assert self._text != text, f"{why}; wrote {text}"

    def _follow(self) -> None:
        while not self._ended:
            select.select([self._pipe], [], [])
            with self._changed:
                self._read()
        os.close(self._pipe)

    def _read(self) -> None:
        """Take what is in the pipe."""
        while not self._ended:
            try:
                data = os.read(self._pipe, 65536)
            except BlockingIOError:
                return
            self._text += self._decoder.decode(data, final=not data)
            self._ended = not data
            self._changed.notify_all()


def _left(deadline: float) -> float:
    return max(0.0, deadline - time.monotonic())


async def eventually(
    ask: Callable[[], object], expected: object = True, *, within: float = LIMIT, every: float = 0.02
) -> None:
    """Ask until the answer, awaited where it can be, is the expected one: for the state of a server, a file or another
    process, which tell nobody of a change.

    The only function of the tests that asks again and again. Raises `AssertionError` with the last answer.
    """
    answer: object = None
    try:
        async with asyncio.timeout(within):
            while True:
                answer = ask()
                if inspect.isawaitable(answer):
                    answer = await answer
                if answer == expected:
                    return
                await asyncio.sleep(every)
    except TimeoutError:
        raise AssertionError(f"expected {expected!r} within {within:g} s, last answer {answer!r}") from None


def blocking(wait: Coroutine[Any, Any, None]) -> None:
    """Wait in code that is not async. (The wait has a loop of its own: one may be running in this thread.)"""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, wait).result()
