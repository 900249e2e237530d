"""One handler at work: its deliveries are taken in, carried in tasks of their own, and let go."""

import asyncio
import contextvars
import time
from collections.abc import Callable, Coroutine
from typing import Any

from ..broker import Clock, Consumer, Countdown, Delivery
from ..events import origin, read_incoming
from ..telemetry import ConsumerStarted, HandlerAbandoned, MissingId, PipelineFailed, QueueFigures, bind_handler
from .handler import HandlerSpec
from .invoke import CANCEL_GRACE, HandlerTimeout
from .job import Job
from .outcome import Failed
from .pipeline import Pipeline
from .remembered import Identity, identity_of
from .scheduler import Lane, Scheduler

_PAUSE = 5.0  # seconds before a delivery that hit a fault of ours goes back to its queue


class Line:
    """Its lane, its pipeline, its consumer and the jobs under way. `pipeline_with` is given what counts their time."""

    def __init__(
        self,
        spec: HandlerSpec,
        pipeline_with: Callable[[Countdown[Job]], Pipeline],
        scheduler: Scheduler,
        limit: int,
        clock: Clock,
    ) -> None:
        self.spec = spec
        self.jobs: dict[asyncio.Task[None], Job] = {}
        self._known: dict[Identity, Job] = {}
        self.consumer: Consumer | None = None
        self._clock = clock
        self._late = Countdown(spec.timeout, self.too_late, clock)
        self._deaf = Countdown(CANCEL_GRACE, self._leave, clock)
        self._pipeline = pipeline_with(self._late)
        self._emit = self._pipeline.emit
        self._prefetch = spec.prefetch or 2 * limit
        self._scheduler = scheduler
        self._lane = Lane(spec.queue, limit, self._start)
        self._base = contextvars.copy_context()
        self._base.run(bind_handler, queue=spec.queue, handler=spec.name)
        self._left: list[Consumer] = []
        self._followed = asyncio.Event()
        self._is_detached = False
        self._returns: set[asyncio.Future[Any]] = set()
        self._without_id = False
        self._figures = QueueFigures(spec.queue)
        self._emit(ConsumerStarted(spec.queue, self._figures))
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
        self._part()

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
        await asyncio.gather(*(consumer.stop(close=True) for consumer in leaving), *self._returns)

    def _part(self) -> None:
        """Leave those consumers of before on whose channels nothing is under way any more: each outage leaves one."""
        needed = {job.delivery.consumer for job in self.jobs.values()}
        for consumer in self._left:
            if consumer not in needed:
                self._keep(asyncio.ensure_future(consumer.stop(close=True)))
        self._left = [consumer for consumer in self._left if consumer in needed]

    def _receive(self, delivery: Delivery) -> None:
        """Take a delivery in. One whose handler still runs on a lost connection's delivery joins it instead."""
        self._figures.received += 1
        if delivery.redelivered and (identity := identity_of(delivery.message)) is not None:
            job = self._known.get(identity)
            if job is not None and not (job.is_settling or job.delivery.consumer.is_current(job.delivery)):
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
        self._figures.in_flight += 1
        message, context = delivery.message, self._base.copy()
        incoming = read_incoming(message, self._clock.now())
        job = Job(delivery, identity_of(message), incoming.metadata, incoming.history, context, self)
        if job.identity is not None:
            self._known[job.identity] = job
        if not (incoming.has_id or self._without_id):
            self._without_id = True
            self._emit(MissingId(self.spec.queue, origin(message)[1]))
        self._run(job, self._pipeline.carry(job))

    def _run(self, job: Job, carrying: Coroutine[Any, Any, None]) -> None:
        task = job.task = asyncio.get_running_loop().create_task(carrying, context=job.context)
        self.jobs[task] = job
        task.add_done_callback(self._end)

    def followed(self) -> None:
        """The consumer is as the claim store's state asks for: what waited for that goes on."""
        self._followed.set()
        self._followed = asyncio.Event()

    async def until_followed(self) -> None:
        if not self._is_detached:
            await self._followed.wait()

    async def be_alone(self, job: Job) -> None:
        await self._scheduler.be_alone()
        job.is_alone = True

    def too_late(self, job: Job) -> None:
        """Cancel the handler; one that does not heed it within its grace is left to itself."""
        job.stop("late")
        self._deaf.add(job)

    def _leave(self, job: Job) -> None:
        if job.task in self.jobs and job.stopped == "late":
            del self.jobs[job.task]
            job.left, job.lingering, job.ran_seconds = True, [job.task], time.perf_counter() - job.began
            error = HandlerTimeout(f"the handler did not finish within {self.spec.timeout:g} s")
            self._run(job, self._pipeline.conclude(job, Failed(error)))

    def free_slot(self, job: Job) -> None:
        """The handler has ended; one that was abandoned keeps its slot until it really returns."""
        if job.slot_is_free:
            return
        job.slot_is_free = True
        straggling = {future for future in job.lingering if not future.done()}
        if not straggling:
            self._scheduler.release(self._lane)
            return
        self._emit(HandlerAbandoned(self.spec.queue, self.spec.name, job.metadata.event_id, self.spec.timeout))

        def returned(future: asyncio.Future[Any]) -> None:
            straggling.discard(future)
            if not future.cancelled():
                future.exception()  # it was told of its time-out already
            if not straggling:
                self._scheduler.release(self._lane, abandoned=True)

        for future in tuple(straggling):
            future.add_done_callback(returned)
        self._scheduler.abandon()

    def _end(self, task: asyncio.Task[None]) -> None:
        job = self.jobs.pop(task, None)
        if job is None:  # it ended long ago, without its handler
            return
        self._deaf.remove(job)
        self._figures.in_flight -= 1
        self.free_slot(job)
        if job.is_alone:
            self._scheduler.end_alone()
        if job.identity is not None and self._known.get(job.identity) is job:
            del self._known[job.identity]
        if not task.cancelled() and (error := task.exception()) is not None:
            self._emit(PipelineFailed(self.spec.queue, job.metadata.event_id, error, _PAUSE))
            asyncio.get_running_loop().call_later(_PAUSE, self._give_back, job.delivery)

    def _give_back(self, delivery: Delivery) -> None:
        self._keep(asyncio.ensure_future(delivery.consumer.give_back(delivery)))

    def _keep(self, task: asyncio.Future[Any]) -> None:
        self._returns.add(task)
        task.add_done_callback(self._returns.discard)
