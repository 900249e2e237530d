"""The operations this process carries out, and the queues it reads: one task each, and a word to whoever watches."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

from ..dead_letters import DeadLetters, Operation, Pace, Rehearsal
from ..events import HoldfastError

_LOOK = 1.0  # seconds after which somebody who watches looks anyway: another process may carry it out


class Running:
    """What goes on in the background of the page."""

    def __init__(self, desk: DeadLetters) -> None:
        self._desk = desk
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()
        self.counts: dict[str, int] = {}
        """Letters read so far, of the queues that are being read."""
        self.errors: dict[str, str] = {}
        """Why the last reading of a queue, or the last run of an operation or a handler, failed."""
        self.rehearsals: dict[tuple[str, str], Rehearsal] = {}
        """How the last run of a handler on letters ended, by queue and filters."""

    def carry_out(self, operation: Operation, pace: Pace) -> None:
        """Begin, or go on with, an operation."""

        async def carry() -> None:
            await self._desk.work(operation, pace, self._tell).run()

        self._begin(operation.id, carry())

    def read(self, queue: str) -> None:
        """Read a queue into its index, unless it is being read."""

        def tell(count: int) -> None:
            self.counts[queue] = count
            self._tell()

        async def read() -> None:
            try:
                await self._desk.read(queue, tell=tell)
            finally:
                self.counts.pop(queue, None)

        self.counts.setdefault(queue, 0)
        self._begin(queue, read())

    def rehearse(self, name: str, letters: tuple[str, str], begin: Callable[[], Awaitable[Rehearsal]]) -> None:
        """Run a handler on letters; `name` is what the run is asked for by."""

        async def rehearse() -> None:
            self.rehearsals.pop(letters, None)
            self.rehearsals[letters] = await begin()

        self._begin(name, rehearse())

    def is_busy(self, name: str) -> bool:
        """Whether this process carries out the operation or run, or reads the queue."""
        return name in self._tasks

    async def watch(self) -> AsyncIterator[None]:
        """Comes back whenever something may have changed."""
        while True:
            yield
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK):
                    await self._changed.wait()
            await asyncio.sleep(0.1)

    async def close(self) -> None:
        """What is under way stops where it is, and can be resumed."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _begin(self, name: str, doing: Coroutine[Any, Any, None]) -> None:
        if name in self._tasks:
            doing.close()
            return
        self.errors.pop(name, None)

        async def do() -> None:
            try:
                await doing
            except (HoldfastError, OSError, sqlite3.Error) as error:  # a full disk, too
                self.errors[name] = str(error)
            finally:
                self._tasks.pop(name, None)
                self._tell()

        self._tasks[name] = asyncio.create_task(do(), name=f"holdfast dashboard {name}")

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
