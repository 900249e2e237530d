"""One run of a worker: declare, consume, follow the stores, drain when it is to stop."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from ..broker import Broker
from ..config import Settings
from ..idempotency import Availability, Boards, OpenClaims, StoreUnavailable, WorkerClaims
from ..telemetry import (
    ClaimsEndangered,
    Draining,
    Emit,
    Lasting,
    Paused,
    Resumed,
    Spans,
    Started,
    Stopped,
    finish,
    keep_running,
)
from .claims import HandlerClaims, Unclaimed
from .context import Surroundings
from .dependencies import Dependencies, Tools
from .following import Follower
from .handler import HandlerSpec, Middleware, sources_of, topology_of
from .in_flight import InFlight, until_ended
from .interruption import Interruption
from .ordering.desk import PREFETCH
from .ordering.partitions import Partitions
from .ordering.turns import TurnOrder, keyed
from .pipeline import Pipeline
from .receipts import announce
from .registration import short_windows
from .run import compose
from .slots import Slots
from .subscription import Subscription
from .transactions import Transactions
from .unrouted import watch_unrouted

if TYPE_CHECKING:
    from ..sql import Database
    from .parts import Part

HANDLER_THREAD = "holdfast-handler"
"""How the names of threads that run `def` handlers begin."""

_FLUSH_PATIENCE = 2.0  # seconds a worker that stops has to record what the claim store did not accept


class Runtime:
    """See `Worker.run`."""

    def __init__(
        self,
        name: str,
        handlers: Iterable[HandlerSpec],
        parts: "Mapping[Part, Database[Any]]",
        middleware: tuple[Middleware, ...],
        settings: Settings,
        emit: Emit,
        spans: Spans,
        dependencies: Dependencies,
    ) -> None:
        self._name = name
        self._handlers = tuple(handlers)
        self._parts = parts
        self._middleware = middleware
        self._settings = settings
        self._emit = emit
        self._spans = spans
        self._dependencies = dependencies
        self._claims: WorkerClaims
        self._boards: Boards | None = None
        self._transactions: Transactions
        self._stop = asyncio.Event()
        self._stop_now = asyncio.Event()
        self._threads = ThreadPoolExecutor(settings.worker.concurrency, thread_name_prefix=HANDLER_THREAD)
        self._slots = Slots(settings.worker.concurrency)
        self._subscriptions: list[Subscription | Partitions] = []
        self._paused: dict[Subscription | Partitions, Availability] = {}
        self._lasting: dict[Lasting, asyncio.Task[None]] = {}
        self._started = False
        self.starting, self.leaving = Interruption(), Interruption()
        self.is_leaving = False
        """Whether the run is over, but for the lifespan. It is left in peace unless a stop at once comes only then."""

    def stop(self, *, now: bool) -> None:
        self._stop.set()
        self.starting.interrupt()
        if now:
            self._stop_now.set()
        if now and self.is_leaving:
            self.leaving.interrupt()

    def missing(self) -> tuple[str, ...]:
        """Return what keeps this worker from being ready."""
        if self._stop.is_set():
            return ("draining",)
        if not self._started:
            return ("starting",)
        subscriptions = self._subscriptions
        stores = {store: f"{store.reason}: {store.error}" for each in subscriptions if (store := each.waits_for)}
        wanted = [each for each in subscriptions if each.waits_for is None]
        detached = (f"consumer of {each.spec.queue}" for each in wanted if not each.is_attached)
        return (*stores.values(), *self._transactions.missing(), *detached)

    def event_of(self, task: "asyncio.Task[Any] | None") -> dict[str, str]:
        """Return the handler and the id of the event that a task handles, if it does. Any thread may ask."""
        for each in self._subscriptions:
            if task is not None and (flight := each.pipeline.in_flight.get(task)) is not None:
                return {"handler": each.spec.name, "event_id": flight.incoming.metadata.event_id}
        return {}

    async def run(self, broker: Broker, state: Any, opened: OpenClaims) -> int:
        """Consume until `stop` is called. Returns how many deliveries were given back unfinished."""
        prefix, given = self._settings.idempotency.prefix, self._dependencies
        self._claims = WorkerClaims(opened, prefix=prefix, clock=given.clock, luck=given.luck, emit=self._emit)
        if opened.board is not None:
            self._boards = Boards(opened.board, self._settings.broker.exchange, given.clock, self._emit)
        self._transactions = Transactions(
            self._handlers, self._parts, self._settings, self._emit, self._spans, given, self._claims.changes
        )
        try:
            async with self.starting.block():
                await asyncio.gather(self._learn(), opened.lease.start())
                topology = topology_of(self._handlers, self._settings.broker)
                await broker.declare(topology, self._settings.broker.topology)
                await self._transactions.start(broker)
            if not self.starting.is_over:
                self._subscriptions = [self._subscription(spec, broker, state) for spec in self._handlers]
                if self._boards is not None:
                    listeners = {spec.queue: sources_of(spec, self._settings.broker) for spec in self._handlers}
                    self._last("listeners", partial(self._boards.keep, listeners))
                self._last("consumers", self._follow)
                self._last("registry", lambda: announce(broker, self._name, self._handlers, self._emit))
                self._last("unrouted", lambda: watch_unrouted(broker, self._emit))
                self._emit(self._start())
                await self._stop.wait()
        finally:
            unfinished = await finish(self._drain())
        return unfinished

    def _last(self, name: Lasting, work: Callable[[], Awaitable[None]]) -> None:
        """Do this until the worker stops."""
        running = keep_running(name, work, self._emit)
        self._lasting[name] = asyncio.create_task(running, name=f"holdfast {name}")

    async def _end(self, *names: Lasting) -> None:
        tasks = [self._lasting.pop(name) for name in names if name in self._lasting]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self) -> Started:
        queues = tuple(spec.queue for spec in self._handlers)
        types = {event_type for spec in self._handlers for event_type in spec.events}
        return Started(self._name, queues, self._settings.worker.concurrency, tuple(sorted(types)))

    def _subscription(self, spec: HandlerSpec, broker: Broker, state: Any) -> Subscription | Partitions:
        settings, emit, given, spans = self._settings, self._emit, self._dependencies, self._spans
        limit = min(spec.concurrency or settings.worker.concurrency, settings.worker.concurrency)
        ordered = spec.ordered
        prefetch = spec.prefetch or 2 * limit if ordered is None else PREFETCH * ordered.partitions
        tools = Tools(broker, self._claims, given.clock, given.luck, emit, spans)
        follower = Follower(self._boards, spec.queue, given.clock)
        handler = compose(spec, self._middleware, self._threads, self._transactions.within(spec, follower))
        pipeline = Pipeline(
            spec,
            handler if ordered is None else keyed(handler),
            Surroundings(
                spec.queue,
                spec.name,
                self._name,
                state,
                settings,
                self._claims.lease,
                spans,
                given.clock,
                spec.publish_types,
            ),
            tools,
            HandlerClaims(spec, self._claims, settings, emit) if spec.claims(settings) else Unclaimed(),
            follower,
            cancel_grace=given.cancel_grace,
            prefetch=prefetch,
            order=None if ordered is None else TurnOrder(),
        )
        lane = self._slots.lane(limit, pipeline.start)
        needs = (*((self._claims,) if spec.pauses(settings) else ()), *self._transactions.needed_by(spec))
        if ordered is not None:
            return Partitions(spec, ordered, broker, pipeline, lane, settings, tools, needs)
        return Subscription(spec, broker, pipeline, lane, prefetch=prefetch, needs=needs, emit=emit)

    async def _learn(self) -> None:
        """Report what endangers the claims. A store that is unavailable is waited for, paused."""
        for text in short_windows(self._handlers, self._settings.idempotency.ttl):
            self._emit(ClaimsEndangered(text))
        try:
            await self._claims.learn()
        except StoreUnavailable as error:
            self._claims.mark_unavailable(error)

    async def _follow(self) -> None:
        """Attach each subscription; detach those that pause while a store they need is unavailable, and attach them
        again after it."""
        claims, clock, paused = self._claims, self._dependencies.clock, self._paused
        stores = (claims, *self._transactions.databases.values())
        while True:
            errors = [(store, store.error) for store in stores]
            for each, store in [*paused.items()]:
                if each.waits_for is not store:
                    self._emit(Resumed(each.spec.queue, store.reason, clock.time() - store.unavailable_since))
                    del paused[each]
            waiting = {each: need for each in self._subscriptions if (need := each.waits_for) is not None}
            pausing = {each: need for each, need in waiting.items() if each not in paused}
            for each, need in pausing.items():
                self._emit(Paused(each.spec.queue, need.reason, need.error or ""))
            paused |= pausing
            await asyncio.gather(*(each.detach() for each in pausing))
            for each in self._subscriptions:
                if each.is_idle and each not in paused:
                    await each.attach()
            for store, error in errors:
                store.followed(error)
            self._started = True
            await claims.changed()

    async def _drain(self) -> int:
        """Take nothing more, give back what waits, let what runs finish, give back the rest."""
        self._stop.set()
        await self._end("consumers", "unrouted")
        grace = self._settings.worker.grace
        self._emit(Draining(self._name, len(self._in_flight()), grace))
        await asyncio.gather(*(each.detach() for each in self._subscriptions))
        self._slots.close()
        for store in (self._claims, *self._transactions.databases.values()):
            store.stop_pausing()
        unfinished = await self._finish(grace)
        await self._transactions.stop()
        await asyncio.gather(*(each.close() for each in self._subscriptions))
        await self._end("registry", "listeners")
        if self._boards is not None:
            await self._boards.close(_FLUSH_PATIENCE)
        await self._claims.close(_FLUSH_PATIENCE)
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._emit(Stopped(self._name, unfinished))
        return unfinished

    async def _finish(self, grace: float) -> int:
        """Wait for the deliveries in flight, at most `grace` seconds. Returns how many were cancelled."""
        stopping = asyncio.create_task(self._stop_now.wait())
        ended = asyncio.create_task(until_ended(self._in_flight))
        await asyncio.wait({stopping, ended}, timeout=grace, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        ended.cancel()
        left = {task: flight for task, flight in self._in_flight().items() if not task.done()}
        for flight in left.values():
            flight.cancel("stop")
        if left:  # a handler that does not end even now goes back with its channel
            await asyncio.wait(left, timeout=1 if self._stop_now.is_set() else 10)
        return len(left)

    def _in_flight(self) -> dict["asyncio.Task[None]", InFlight]:
        return {task: flight for each in self._subscriptions for task, flight in each.pipeline.in_flight.items()}
