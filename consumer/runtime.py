"""One run of a worker: take deliveries, run them in tasks of its own, drain when told to stop."""

import asyncio
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

from ..broker import Broker, Consumer, Delivery
from ..config import Settings
from ..events import has_id, origin, read_metadata
from ..idempotency import OpenClaims, StoreUnavailable
from ..telemetry import (
    Began,
    ClaimsEndangered,
    Draining,
    Emit,
    Ended,
    HandlerAbandoned,
    MissingId,
    Paused,
    PipelineFailed,
    Received,
    Resumed,
    Spans,
    Started,
    Stopped,
)
from .claiming import Claiming, short_windows
from .handler import HandlerSpec, Middleware
from .invoke import compose
from .pipeline import Job, Pipeline
from .remembered import Identity, Remembered, identity_of
from .reports import announce
from .scheduler import Lane, Scheduler
from .topology import topology_of

HANDLER_THREAD = "holdfast-handler"
"""How the names of threads that run `def` handlers begin."""

_PAUSE = 5.0  # seconds before a delivery that hit a fault of ours goes back to its queue
_LAST_WORDS = 2.0  # seconds a worker that stops has to record what the claim store did not take


class Line:
    """One handler at work: its lane, its pipeline, its consumer and the jobs under way."""

    def __init__(self, pipeline: Pipeline, scheduler: Scheduler, limit: int) -> None:
        self.spec = pipeline.spec
        self.jobs: dict[Identity, Job] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        self.consumer: Consumer | None = None
        self._pipeline = pipeline
        self._prefetch = pipeline.spec.prefetch or 2 * limit
        self._scheduler = scheduler
        self._lane = Lane(pipeline.spec.queue, limit, self._start)
        self._emit = pipeline.emit
        self._left: list[Consumer] = []
        self._followed = asyncio.Event()
        self._is_detached = False
        self._returns: set[asyncio.Future[bool]] = set()
        self._without_id = False
        queue = pipeline.spec.queue
        self._received, self._began, self._ended = Received(queue), Began(queue), Ended(queue)
        scheduler.add(self._lane)

    @property
    def pauses(self) -> bool:
        """Whether it does not run while the claim store is away."""
        return self._pipeline.claims is not None and self.spec.pauses(self._pipeline.settings)

    async def attach(self) -> None:
        """Consume the queue."""
        self._scheduler.resume(self._lane)
        self._is_detached = False
        broker, queue = self._pipeline.broker, self.spec.queue
        self.consumer = await broker.consume(queue, prefetch=self._prefetch, on_delivery=self._receive)

    async def detach(self) -> None:
        """Consume it no more. What waits goes back to it once; what runs ends, and is settled where it came from."""
        waiting = self._scheduler.pause(self._lane)
        leaving, self.consumer = self.consumer, None
        if leaving is not None:
            self._left.append(leaving)
            await leaving.stop(close=False)
        self._is_detached = True
        for delivery in [*waiting, *self._scheduler.pause(self._lane)]:
            await delivery.consumer.give_back(delivery)

    async def close(self) -> None:
        """Leave the queue for good: what is still unsettled goes back."""
        await self.detach()
        leaving, self._left = self._left, []
        await asyncio.gather(*(consumer.stop(close=True) for consumer in leaving))

    def _receive(self, delivery: Delivery) -> None:
        """Take a delivery in. One whose handler still runs on a lost connection's delivery joins it instead."""
        self._emit(self._received)
        identity = identity_of(delivery.message)
        job = self.jobs.get(identity) if identity is not None else None
        if job is not None and not job.delivery.consumer.is_current(job.delivery):
            job.delivery = delivery
            return
        inbox = self._lane.inbox
        if inbox and inbox[0].generation != delivery.generation:
            fresh = [waiting for waiting in inbox if waiting.consumer.is_current(waiting)]
            inbox.clear()
            inbox.extend(fresh)
        self._scheduler.offer(self._lane, delivery)

    def _start(self, delivery: Delivery) -> None:
        if not delivery.consumer.is_current(delivery):
            asyncio.get_running_loop().call_soon(self._scheduler.release, self._lane)
            return
        self._emit(self._began)
        job = Job(delivery, self._free_slot, self._be_alone, self._until_followed)
        if (identity := identity_of(delivery.message)) is not None:
            self.jobs[identity] = job
        if not self._without_id and not has_id(delivery.message):
            self._without_id = True
            self._emit(MissingId(self.spec.queue, origin(delivery.message)[1]))
        task = asyncio.create_task(self._pipeline.carry(job), name=f"{self.spec.queue} delivery")
        self.tasks.add(task)
        task.add_done_callback(lambda ended: self._end(ended, job))

    def followed(self) -> None:
        """The consumer is as the claim store's state asks for: what waited for that goes on."""
        self._followed.set()
        self._followed = asyncio.Event()

    async def _until_followed(self) -> None:
        if not self._is_detached:
            await self._followed.wait()

    async def _be_alone(self, job: Job) -> None:
        await self._scheduler.be_alone()
        job.is_alone = True

    def _free_slot(self, job: Job) -> None:
        """The handler has ended; one that was abandoned keeps its slot until it really returns."""
        if job.slot_is_free:
            return
        job.slot_is_free = True
        straggling = {future for future in job.lingering if not future.done()}
        if not straggling:
            self._scheduler.release(self._lane)
            return
        self._emit(HandlerAbandoned(self.spec.queue, self.spec.name, _event_id(job), self.spec.timeout))

        def returned(future: asyncio.Future[Any]) -> None:
            straggling.discard(future)
            if not future.cancelled():
                future.exception()  # it was told of its time-out already
            if not straggling:
                self._scheduler.release(self._lane, abandoned=True)

        for future in tuple(straggling):
            future.add_done_callback(returned)
        self._scheduler.abandon()

    def _end(self, task: asyncio.Task[None], job: Job) -> None:
        self.tasks.discard(task)
        self._emit(self._ended)
        self._free_slot(job)
        if job.is_alone:
            self._scheduler.end_alone()
        identity = identity_of(job.delivery.message)
        if identity is not None and self.jobs.get(identity) is job:
            del self.jobs[identity]
        if not task.cancelled() and (error := task.exception()) is not None:
            self._emit(PipelineFailed(self.spec.queue, _event_id(job), error, _PAUSE))
            asyncio.get_running_loop().call_later(_PAUSE, self._give_back, job.delivery)

    def _give_back(self, delivery: Delivery) -> None:
        task = asyncio.ensure_future(delivery.consumer.give_back(delivery))
        self._returns.add(task)
        task.add_done_callback(self._returns.discard)


def _event_id(job: Job) -> str:
    message = job.delivery.message
    return read_metadata(message, datetime.now(UTC)).event_id


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
    ) -> None:
        self._name = name
        self._handlers = tuple(handlers)
        self._middleware = middleware
        self._settings = settings
        self._emit = emit
        self._spans = spans
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
            self._announcing = asyncio.create_task(announce(broker, self._name, self._handlers))
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
        settings, name, emit, spans = self._settings, self._name, self._emit, self._spans
        pipeline = Pipeline(spec, handler, broker, claims, settings, name, state, done, emit, spans)
        return Line(pipeline, self._scheduler, limit)

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
        for finding in [*findings, *short_windows(self._handlers, self._settings.idempotency.ttl)]:
            self._emit(ClaimsEndangered(finding))

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
        tasks = {task for line in self._lines for task in line.tasks}
        self._emit(Draining(self._name, len(tasks), grace))
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
        running = {task for line in self._lines for task in line.tasks}
        if running:
            told = asyncio.create_task(self._stop_now.wait())
            ended = asyncio.create_task(asyncio.wait(running))
            await asyncio.wait({told, ended}, timeout=grace, return_when=asyncio.FIRST_COMPLETED)
            told.cancel()
            ended.cancel()
        left = {task for task in running if not task.done()}
        for task in left:
            task.cancel()
        if left:  # what does not end even now goes back with its channel
            await asyncio.wait(left, timeout=1 if self._stop_now.is_set() else 10)
        return len(left)
