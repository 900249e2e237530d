"""The background of the page: operations, readings of queues and runs of handlers, a task each."""

import asyncio
from collections.abc import Awaitable, Callable

from ..dead_letters import DeadLetters, Operation, Pace, Rehearsal, Selection


class Background:
    """The tasks behind the page, by the name of an operation, queue or run."""

    def __init__(self, service: DeadLetters) -> None:
        self._service = service
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.counts: dict[str, int] = {}
        """Letters read so far, of the queues that are being read."""
        self.errors: dict[str, str] = {}
        """Why the last reading of a queue, or the last run of an operation or a handler, failed."""
        self.rehearsals: dict[tuple[str, Selection], Rehearsal] = {}
        """How the last run of a handler on letters ended, by queue and selection."""

    def carry_out(self, operation: Operation, pace: Pace) -> None:
        """Begin, or go on with, an operation."""
        self._begin(operation.id, lambda: self._service.work(operation, pace).run())

    def read(self, queue: str) -> None:
        """Read a queue into its index, unless it is being read."""

        async def read() -> None:
            try:
                await self._service.read(queue, tell=lambda count: self.counts.update({queue: count}))
            finally:
                self.counts.pop(queue, None)

        self.counts.setdefault(queue, 0)
        self._begin(queue, read)

    def rehearse(self, name: str, letters: tuple[str, Selection], run: Callable[[], Awaitable[Rehearsal]]) -> None:
        """Run a handler on letters. `name` is the run's."""

        async def rehearse() -> None:
            self.rehearsals.pop(letters, None)
            self.rehearsals[letters] = await run()

        self._begin(name, rehearse)

    def is_busy(self, name: str) -> bool:
        """Whether this process carries out the operation or run, or reads the queue."""
        return name in self._tasks

    async def close(self) -> None:
        """Stop all tasks. What they were at can be resumed."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _begin(self, name: str, work: Callable[[], Awaitable[object]]) -> None:
        if name in self._tasks:
            return
        self.errors.pop(name, None)

        async def do() -> None:
            try:
                await work()
            except Exception as error:  # noqa: BLE001 (whatever it is, whoever watches has to see it)
                self.errors[name] = str(error) or type(error).__name__
            finally:
                self._tasks.pop(name, None)

        self._tasks[name] = asyncio.create_task(do(), name=f"holdfast dashboard {name}")
