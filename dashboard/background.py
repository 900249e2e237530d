"""The background of the page: operations, readings of queues and runs of handlers, a task each."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

from ..dead_letters import DeadLetters, Filters, Operation, Pace, Rehearsal
from ..events import HoldfastError

_LOOK = 1.0  # seconds after which somebody who watches looks anyway: another process may carry it out


class Background:
    """The tasks behind the page, by the name of an operation, queue or run. Whoever watches is woken by each change."""

    def __init__(self, service: DeadLetters) -> None:
        self._service = service
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()
        self.counts: dict[str, int] = {}
        """Letters read so far, of the queues that are being read."""
        self.errors: dict[str, str] = {}
        """Why the last reading of a queue, or the last run of an operation or a handler, failed."""
        self.rehearsals: dict[tuple[str, Filters], Rehearsal] = {}
        """How the last run of a handler on letters ended, by queue and filters."""

    def carry_out(self, operation: Operation, pace: Pace) -> None:
        """Begin, or go on with, an operation."""

        async def carry() -> None:
            await self._service.work(operation, pace, self._tell).run()

        self._begin(operation.id, carry())

    def read(self, queue: str) -> None:
        """Read a queue into its index, unless it is being read."""

        def tell(count: int) -> None:
            self.counts[queue] = count
            self._tell()

        async def read() -> None:
            try:
                await self._service.read(queue, tell=tell)
            finally:
                self.counts.pop(queue, None)

        self.counts.setdefault(queue, 0)
        self._begin(queue, read())

    def rehearse(self, name: str, letters: tuple[str, Filters], run: Callable[[], Awaitable[Rehearsal]]) -> None:
        """Run a handler on letters. `name` is the run's."""

        async def rehearse() -> None:
            self.rehearsals.pop(letters, None)
            self.rehearsals[letters] = await run()

        self._begin(name, rehearse())

    def is_busy(self, name: str) -> bool:
        """Whether this process carries out the operation or run, or reads the queue."""
        return name in self._tasks

    async def watch(self) -> AsyncIterator[None]:
        """Yield whenever something may have changed."""
        while True:
            yield
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK):
                    await self._changed.wait()
            await asyncio.sleep(0.1)

    async def close(self) -> None:
        """Stop all tasks. What they were at can be resumed."""
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
