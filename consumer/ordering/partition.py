"""One queue of an ordered handler: in line for it, its owner, or neither while a store is unavailable."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from ...broker import RECONNECT, STEADY, Broker
from ...events import HoldfastError
from ...telemetry import Attached, Detached, keep_running
from ..in_flight import until_ended
from ..pipeline import Pipeline
from .desk import Desk
from .ownership import Left, Owner, Ownership
from .seat import PASSED_ON

_PAUSED = "paused"


class Partition:
    """One queue of an ordered handler. `admit` is asked whether this worker may be its owner, and `forget` is called
    when it no longer is.

    When it is detached it starts nothing, lets what runs end, and leaves the line; another worker owns the queue then.
    """

    def __init__(
        self,
        desk: Desk,
        broker: Broker,
        pipeline: Pipeline,
        admit: "Callable[[Partition], Awaitable[bool]]",
        forget: "Callable[[Partition], None]",
    ) -> None:
        self._desk = desk
        self._broker = broker
        self._pipeline = pipeline
        self._admit, self._forget = admit, forget
        self._wanted, self._now = asyncio.Event(), asyncio.Event()
        self._is_closing = False
        self._ownership: Ownership | None = None
        self._task: asyncio.Task[None] | None = None
        self._generation = 0

    @property
    def is_idle(self) -> bool:
        """Whether it is neither in line nor the owner, and is not about to be."""
        return not self._wanted.is_set()

    @property
    def is_attached(self) -> bool:
        """Whether it is in line, or the owner."""
        return self._wanted.is_set() and self._ownership is not None and self._ownership.is_attached

    async def attach(self) -> None:
        """Get in line."""
        self._wanted.set()
        if self._task is None:
            lasting = keep_running("consumer", self._live, self._desk.tools.emit)
            self._task = asyncio.create_task(lasting, name=f"holdfast order of {self._desk.queue}")

    async def detach(self) -> None:
        """Start nothing more, and leave once what runs has ended."""
        self._wanted.clear()
        self.release(_PAUSED)

    def release(self, reason: str = PASSED_ON) -> None:
        """Start nothing more, and leave to the next in line once what runs has ended."""
        if (ownership := self._ownership) is not None:
            if ownership.owner is not None:
                ownership.owner.pause()
            ownership.leave(reason)

    async def close(self) -> None:
        """Leave for good, now."""
        self._is_closing = True
        await self.detach()
        self._now.set()
        task, self._task = self._task, None
        if task is not None:
            self._wanted.set()
            await asyncio.wait({task})

    async def _live(self) -> None:
        failures, loop, tools, queue = 0, asyncio.get_running_loop(), self._desk.tools, self._desk.queue
        while not self._is_closing:
            await self._wanted.wait()
            if self._now.is_set():
                return
            since = loop.time()
            reason = await self._serve()
            failures = 0 if loop.time() - since > STEADY else failures
            if reason in (_PAUSED, PASSED_ON):
                continue
            delay = RECONNECT.seconds(failures, random.random())
            failures += 1
            tools.emit(Detached(queue, reason, delay))
            await _first(asyncio.sleep(delay), self._now.wait())

    async def _serve(self) -> str:
        """Be in line, then be the owner. Returns the reason why that is over."""
        ownership = self._ownership = Ownership(self._desk, self._broker, lambda: self._admit(self))
        self._generation += 1
        reason = _PAUSED
        try:
            await ownership.join()
            self._desk.tools.emit(Attached(self._desk.queue, self._generation))
            await ownership.become_owner()
            reason = await ownership.until_over()
        except (Left, HoldfastError) as error:
            reason = str(error)
        finally:
            if ownership.owner is not None and (reason == PASSED_ON or not self._wanted.is_set()):
                await self._until_settled(ownership.owner)
            await ownership.close()
            self._ownership = None
            self._forget(self)
            self._desk.lane.drop_stale()
        return reason

    async def _until_settled(self, owner: Owner) -> None:
        """Return once what runs has ended, or nobody waits for it any more."""
        await _first(until_ended(lambda: owner.running(self._pipeline.in_flight)), self._now.wait())


async def _first(*waits: Coroutine[Any, Any, object]) -> None:
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
