"""An ordered handler's queue: in line for it, its owner, or not while a store is unavailable."""

import asyncio
import random
from collections.abc import Coroutine
from typing import Any

from ...broker import Broker, Pause
from ...events import HoldfastError
from ...idempotency import Availability
from ...telemetry import Attached, ConsumerStarted, Detached, keep_running
from ..handler import HandlerSpec
from ..pipeline import Pipeline
from .desk import Desk
from .ownership import Left, Ownership

_AGAIN = Pause(0.2, 4.0, jitter=1.0)  # between two times in line
_STEADY = 5.0  # seconds after which one counts as one that worked
_PAUSED = "paused"


class Partition:
    """See `consumer.subscription.Subscription`: the same for an ordered handler.

    When it is detached it starts nothing, lets what runs end, and leaves the line; another worker owns the queue then.
    """

    def __init__(self, desk: Desk, broker: Broker, pipeline: Pipeline, needs: tuple[Availability, ...]) -> None:
        self.pipeline = pipeline
        self.needs = needs
        self._desk = desk
        self._broker = broker
        self._wanted, self._now = asyncio.Event(), asyncio.Event()
        self._is_closing = False
        self._ownership: Ownership | None = None
        self._task: asyncio.Task[None] | None = None
        self._generation = 0
        desk.figures.is_ordered = True
        desk.tools.emit(ConsumerStarted(self.spec.queue, desk.figures))

    @property
    def spec(self) -> HandlerSpec:
        """The handler."""
        return self._desk.spec

    @property
    def is_idle(self) -> bool:
        """Whether it is neither in line nor the owner, and is not about to be."""
        return not self._wanted.is_set()

    @property
    def is_attached(self) -> bool:
        """Whether it is in line, or the owner."""
        return self._wanted.is_set() and self._ownership is not None and self._ownership.is_attached

    @property
    def waits_for(self) -> Availability | None:
        """The store that it has to wait for now."""
        return next((store for store in self.needs if store.error is not None), None)

    async def attach(self) -> None:
        """Get in line."""
        self._wanted.set()
        if self._task is None:
            lasting = keep_running("consumer", self._live, self._desk.tools.emit)
            self._task = asyncio.create_task(lasting, name=f"holdfast order of {self.spec.queue}")

    async def detach(self) -> None:
        """Start nothing more, and leave once what runs has ended."""
        self._wanted.clear()
        self._desk.lane.pause()
        if (ownership := self._ownership) is not None:
            if ownership.tenure is not None:
                ownership.tenure.pause()
            ownership.leave(_PAUSED)

    async def close(self) -> None:
        """Leave for good, now."""
        self._is_closing = True
        await self.detach()
        self._now.set()
        task, self._task = self._task, None
        if task is not None:
            self._wanted.set()
            await asyncio.wait({task})
        await self.pipeline.close()

    async def _live(self) -> None:
        failures, loop, tools, queue = 0, asyncio.get_running_loop(), self._desk.tools, self.spec.queue
        while not self._is_closing:
            await self._wanted.wait()
            if self._now.is_set():
                return
            since = loop.time()
            reason = await self._serve()
            failures = 0 if loop.time() - since > _STEADY else failures
            if reason == _PAUSED:
                continue
            delay = _AGAIN.seconds(failures, random.random())
            failures += 1
            tools.emit(Detached(queue, reason, delay))
            await _first(asyncio.sleep(delay), self._now.wait())

    async def _serve(self) -> str:
        """Be in line, then be the owner. Returns the reason why that is over."""
        self._desk.lane.resume()
        ownership = self._ownership = Ownership(self._desk, self._broker)
        self._generation += 1
        try:
            await ownership.join()
            self._desk.tools.emit(Attached(self.spec.queue, self._generation))
            await ownership.become_owner()
            reason = await ownership.until_over()
        except (Left, HoldfastError) as error:
            reason = str(error)
        finally:
            if ownership.tenure is not None and not self._wanted.is_set():
                await self._until_settled()
            await ownership.close()
            self._ownership = None
            self._desk.lane.drop_stale()
        return reason

    async def _until_settled(self) -> None:
        """Return once what runs has ended, or nobody waits for it any more."""
        if running := set(self.pipeline.in_flight):
            await _first(asyncio.wait(running), self._now.wait())


async def _first(*waits: Coroutine[Any, Any, object]) -> None:
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
