"""One run of a worker: declare, consume, follow the claim store, drain when told to stop."""

import asyncio
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ..broker import Broker, Countdown
from ..config import Settings
from ..idempotency import OpenClaims, StoreUnavailable
from ..telemetry import (
    ClaimsEndangered,
    Draining,
    Emit,
    Paused,
    Resumed,
    Spans,
    Started,
    Stopped,
)
from .claiming import Claiming, short_windows
from .context import Surroundings
from .handler import HandlerSpec, Middleware
from .invoke import compose
from .job import Job
from .line import Line
from .pipeline import Pipeline
from .remembered import Remembered
from .reports import announce
from .scheduler import Scheduler
from .topology import topology_of
from .world import World

HANDLER_THREAD = "holdfast-handler"
"""How the names of threads that run `def` handlers begin."""

_LAST_WORDS = 2.0  # seconds a worker that stops has to record what the claim store did not take


class Runtime:
    """See `Worker.run`."""

    def __init__(
        self,
        name: str,
        handlers: Iterable[HandlerSpec],
        middleware: tuple[Middleware, ...],
        settings: Settings,
        emit: Emit,
        spans: Spans,
        world: World,
    ) -> None:
        self._name = name
        self._handlers = tuple(handlers)
        self._middleware = middleware
        self._settings = settings
        self._emit = emit
        self._spans = spans
        self._world = world
        self._stop = asyncio.Event()
        self._stop_now = asyncio.Event()
        self._threads = ThreadPoolExecutor(settings.worker.concurrency, thread_name_prefix=HANDLER_THREAD)
        self._scheduler = Scheduler(settings.worker.concurrency)
        self._lines: list[Line] = []
        self._claims: Claiming | None = None
        self._changed = asyncio.Event()
        self._following: asyncio.Task[None] | None = None
        self._started = False
        self._announcing: asyncio.Task[None] | None = None

    def stop(self, *, now: bool) -> None:
        self._stop.set()
        if now:
            self._stop_now.set()

    def missing(self) -> tuple[str, ...]:
        """What keeps this worker from being ready."""
        if self._stop.is_set():
            return ("draining",)
        if not self._started:
            return ("starting",)
        error = self._claims.error if self._claims is not None else None
        away = error is not None and any(line.pauses for line in self._lines)
        detached = [line for line in self._lines if line.consumer is None or not line.consumer.attached]
        waited_for = [line for line in detached if not (away and line.pauses)]
        store = (f"claim store: {error}",) if away else ()
        return (*store, *(f"consumer of {line.spec.queue}" for line in waited_for))

    async def run(self, broker: Broker, state: Any, opened: OpenClaims | None) -> int:
        """Consume until told to stop. Returns how many deliveries were given back unfinished."""
        most = self._settings.worker.concurrency
        stopping = asyncio.create_task(self._stop.wait())
        try:
            await self._claim_with(opened)
            if not await self._declared(broker, stopping):
                return 0
            self._lines = [self._line(spec, broker, state, most) for spec in self._handlers]
            self._changed.set()
            self._following = asyncio.create_task(self._follow_the_store(), name="holdfast consumers")
            self._announcing = asyncio.create_task(announce(broker, self._name, self._handlers, self._emit))
            self._emit(self._begins(most))
            await asyncio.wait({self._following, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if self._following.done():
                self._following.result()
        finally:
            stopping.cancel()
            unfinished = await asyncio.shield(self._drain())
        return unfinished

    def _begins(self, concurrency: int) -> Started:
        queues = tuple(spec.queue for spec in self._handlers)
        types = {event_type for spec in self._handlers for event_type in spec.events}
        return Started(self._name, queues, concurrency, tuple(sorted(types)))

    def _line(self, spec: HandlerSpec, broker: Broker, state: Any, most: int) -> Line:
        limit = min(spec.concurrency or most, most)
        handler = compose(spec, self._middleware, self._threads)
        done = Remembered(4 * (spec.prefetch or 2 * limit))
        claims = self._claims if spec.idempotent else None
        settings, emit, spans, world = self._settings, self._emit, self._spans, self._world
        lease = claims.lease if claims is not None else None
        around = Surroundings(
            spec.queue, spec.name, self._name, state, settings, lease, spans, world.clock, spec.publish_types
        )

        def pipeline_with(late: Countdown[Job]) -> Pipeline:
            return Pipeline(spec, handler, broker, claims, settings, around, done, late, emit, spans, world.luck)

        return Line(spec, pipeline_with, self._scheduler, limit, world.clock)

    async def _claim_with(self, opened: OpenClaims | None) -> None:
        """Take the lease, and say what endangers the claims. A store that is away is waited for, paused."""
        if opened is None:
            return
        prefix = self._settings.idempotency.prefix
        self._claims = Claiming(opened, prefix=prefix, on_change=self._changed.set)
        try:
            findings = await opened.findings()
        except StoreUnavailable as error:
            self._claims.goes_away(error)
            findings = []
        await opened.lease.start()
        short = short_windows(self._handlers, self._settings.idempotency.ttl)
        for told in [*(finding.told for finding in findings), *short]:
            self._emit(ClaimsEndangered(told))

    async def _follow_the_store(self) -> None:
        """Attach each line; detach those that pause while the claim store is away, and attach them again after it."""
        paused: set[Line] = set()
        while True:
            await self._changed.wait()
            self._changed.clear()
            claims = self._claims
            if claims is not None and claims.error is not None:
                pausing = [line for line in self._lines if line.pauses and line not in paused]
                for line in pausing:
                    self._emit(Paused(line.spec.queue, "claim store", claims.error))
                paused |= set(pausing)
                await asyncio.gather(*(line.detach() for line in pausing))
            else:
                for line in paused:
                    seconds = time.monotonic() - claims.away_since if claims is not None else 0.0
                    self._emit(Resumed(line.spec.queue, "claim store", seconds))
                paused.clear()
            for line in self._lines:
                if line.consumer is None and line not in paused:
                    await line.attach()
                line.followed()
            self._started = True

    async def _declared(self, broker: Broker, stopping: asyncio.Task[Any]) -> bool:
        """Wait for the broker and declare the topology; False where the worker is stopped before that."""
        topology = topology_of(self._handlers, self._settings.broker)
        declaring = asyncio.create_task(broker.declare(topology, self._settings.broker.topology))
        try:
            await asyncio.wait({declaring, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if declaring.done():
                declaring.result()
            return declaring.done()
        finally:
            declaring.cancel()
            await asyncio.gather(declaring, return_exceptions=True)

    async def _drain(self) -> int:
        """Stop taking, give back what waits, let what runs finish, give back the rest."""
        self._stop.set()
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait({self._following})
        grace = self._settings.worker.grace
        running = sum(len(line.jobs) for line in self._lines)
        self._emit(Draining(self._name, running, grace))
        await asyncio.gather(*(line.detach() for line in self._lines))
        self._scheduler.close()
        for line in self._lines:
            line.followed()
        unfinished = await self._finish(grace)
        await asyncio.gather(*(line.close() for line in self._lines))
        if self._announcing is not None:
            self._announcing.cancel()
        if self._claims is not None:
            await self._claims.close(_LAST_WORDS)
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._emit(Stopped(self._name, unfinished))
        return unfinished

    async def _finish(self, grace: float) -> int:
        running = {task: job for line in self._lines for task, job in line.jobs.items()}
        if running:
            told = asyncio.create_task(self._stop_now.wait())
            ended = asyncio.create_task(asyncio.wait(running))
            await asyncio.wait({told, ended}, timeout=grace, return_when=asyncio.FIRST_COMPLETED)
            told.cancel()
            ended.cancel()
        left = {task: job for line in self._lines for task, job in line.jobs.items() if not task.done()}
        for job in left.values():
            job.stop("stopping")
        if left:  # what does not end even now goes back with its channel
            await asyncio.wait(left, timeout=1 if self._stop_now.is_set() else 10)
        return len(left)
