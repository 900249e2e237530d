"""One run of a worker: take deliveries, run them in tasks of its own, drain when told to stop."""

import asyncio
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

from ..broker import Broker, Consumer, Delivery
from ..config import Settings
from ..events import read_metadata
from ..telemetry import Draining, Emit, HandlerAbandoned, PipelineFailed, Started, Stopped
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


class Line:
    """One handler at work: its lane, its pipeline and the jobs under way."""

    def __init__(self, pipeline: Pipeline, scheduler: Scheduler, limit: int) -> None:
        self.spec = pipeline.spec
        self.jobs: dict[Identity, Job] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        self._pipeline = pipeline
        self._scheduler = scheduler
        self._lane = Lane(pipeline.spec.queue, limit, self._start)
        self._emit = pipeline.emit
        self._returns: set[asyncio.Future[bool]] = set()
        scheduler.add(self._lane)

    def receive(self, delivery: Delivery) -> None:
        """Take a delivery in. One whose handler still runs on a lost connection's delivery joins it instead."""
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
        job = Job(delivery, self._free_slot)
        if (identity := identity_of(delivery.message)) is not None:
            self.jobs[identity] = job
        task = asyncio.create_task(self._pipeline.carry(job), name=f"{self.spec.queue} delivery")
        self.tasks.add(task)
        task.add_done_callback(lambda ended: self._end(ended, job))

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
                self._scheduler.release(self._lane)

        for future in tuple(straggling):
            future.add_done_callback(returned)

    def _end(self, task: asyncio.Task[None], job: Job) -> None:
        self.tasks.discard(task)
        self._free_slot(job)
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
    ) -> None:
        self._name = name
        self._handlers = tuple(handlers)
        self._middleware = middleware
        self._settings = settings
        self._emit = emit
        self._stop = asyncio.Event()
        self._stop_now = asyncio.Event()
        self._threads = ThreadPoolExecutor(settings.worker.concurrency, thread_name_prefix=HANDLER_THREAD)
        self._scheduler = Scheduler(settings.worker.concurrency)
        self._lines: list[Line] = []
        self._consumers: list[Consumer] = []
        self._announcing: asyncio.Task[None] | None = None

    def stop(self, *, now: bool) -> None:
        self._stop.set()
        if now:
            self._stop_now.set()

    def missing(self) -> tuple[str, ...]:
        """What keeps this worker from being ready."""
        if self._stop.is_set():
            return ("draining",)
        if len(self._consumers) < len(self._handlers):
            return ("starting",)
        pairs = zip(self._lines, self._consumers, strict=True)
        return tuple(f"consumer of {line.spec.queue}" for line, consumer in pairs if not consumer.attached)

    async def run(self, broker: Broker, state: Any) -> int:
        """Consume until told to stop. Returns how many deliveries were given back unfinished."""
        most = self._settings.worker.concurrency
        try:
            if not await self._declared(broker):
                return 0
            for spec in self._handlers:
                limit = min(spec.concurrency or most, most)
                handler = compose(spec, self._middleware, self._threads)
                prefetch = spec.prefetch or 2 * limit
                done = Remembered(4 * prefetch)
                pipeline = Pipeline(spec, handler, broker, self._settings, self._name, state, done, self._emit)
                line = Line(pipeline, self._scheduler, limit)
                self._lines.append(line)
                self._consumers.append(await broker.consume(spec.queue, prefetch=prefetch, on_delivery=line.receive))
            self._announcing = asyncio.create_task(announce(broker, self._name, self._handlers))
            self._emit(Started(self._name, tuple(spec.queue for spec in self._handlers), most))
            await self._stop.wait()
        finally:
            unfinished = await asyncio.shield(self._drain())
        return unfinished

    async def _declared(self, broker: Broker) -> bool:
        """Wait for the broker and declare the topology; False where the worker is stopped before that."""
        topology = topology_of(self._handlers, self._settings.broker)
        declaring = asyncio.create_task(broker.declare(topology, self._settings.broker.topology))
        stopping = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({declaring, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if declaring.done():
                declaring.result()
            return declaring.done()
        finally:
            stopping.cancel()
            declaring.cancel()
            await asyncio.gather(declaring, return_exceptions=True)

    async def _drain(self) -> int:
        """Stop taking, give back what waits, let what runs finish, give back the rest."""
        self._stop.set()
        grace = self._settings.worker.grace
        tasks = {task for line in self._lines for task in line.tasks}
        self._emit(Draining(self._name, len(tasks), grace))
        waiting = self._scheduler.close()
        await asyncio.gather(*(consumer.stop(close=False) for consumer in self._consumers))
        for delivery in [*waiting, *self._scheduler.close()]:
            await delivery.consumer.give_back(delivery)
        unfinished = await self._finish(grace)
        await asyncio.gather(*(consumer.stop(close=True) for consumer in self._consumers))
        if self._announcing is not None:
            self._announcing.cancel()
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
