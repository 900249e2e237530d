"""A worker of a harness: run on the harness's time, broker and claims, and started again after a crash."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

from pydantic import SecretStr

from ..broker import Broker, ledger_queue
from ..config import Settings
from ..consumer import Dependencies, Worker
from ..consumer.handler import Companion
from ..consumer.ordering.desk import PREFETCH
from ..consumer.parts import Job
from ..idempotency import Endangered, Lease, MemoryClaims, OpenClaims
from ..sagas.sweeper import Sweeper
from ..telemetry import ConsumerStarted, Emit, Fact, PartitionFigures, QueueFigures, Settled, Started
from .clock import VirtualClock
from .faults import Faults, Life, WatchedBoard, WatchedBroker, WatchedClaims
from .seen import Seen
from .server import WatchedServer

__tracebackhide__ = True

_numbers = count(1)


@dataclass(frozen=True, slots=True)
class Stage:
    """What the workers of one harness share. `patience`: real seconds until what does not move is taken to hang."""

    clock: VirtualClock
    luck: random.Random
    server: WatchedServer
    claims: MemoryClaims
    faults: Faults
    seen: Seen
    patience: float
    jobs: list[Job] = field(default_factory=list)

    def settings_for(self, worker: Worker) -> Settings:
        """The worker's own, but on this stage."""
        own, here = worker.settings, SecretStr(self.server.url)
        return own.model_copy(
            update={
                "broker": own.broker.model_copy(update={"url": here, "topology": "declare"}),
                "idempotency": own.idempotency.model_copy(update={"url": here}),
                "worker": own.worker.model_copy(update={"grace": self.patience}),
            }
        )


def stage_for(workers: Sequence[Worker], *, patience: float, seed: int) -> Stage:
    """A stage of its own for these workers; `seed` is where the jitter of delays falls."""
    handlers = {spec.queue: spec for worker in workers for spec in worker.selected()}
    clock, seen = VirtualClock(), Seen(handlers)
    names = workers[0].settings.worker.names
    server = WatchedServer(f"memory://harness-{next(_numbers)}", clock, tuple(handlers), names)
    claims = MemoryClaims(ttl=workers[0].settings.idempotency.ttl, clock=clock.time)
    faults = Faults(changed=seen.changed)
    return Stage(clock, random.Random(seed), server, claims, faults, seen, patience)


class Replica:
    """One worker, which runs again after a crash. `task` ends when it was stopped, or could not run."""

    def __init__(self, worker: Worker, stage: Stage) -> None:
        self._worker = worker
        self._stage = stage
        self._queues = {spec.queue for spec in worker.selected()}
        self._settings = stage.settings_for(worker)
        self._figures: dict[str, QueueFigures] = {}
        self._has_started = self._is_stopping = False
        self._companions: list[Companion] = []
        self.task = asyncio.create_task(self._run(), name=f"holdfast harness: {worker.name}")
        self.task.add_done_callback(lambda _: stage.seen.changed.set())

    @property
    def is_busy(self) -> bool:
        """Whether something will happen without any time passing. Raises what ended the worker, if something did."""
        if self.task.done():
            self.task.result()
        if not self._has_started:  # a worker of projections alone has no queue to wait for
            return True
        figures = self._figures.values()
        attached = {each.queue for each in figures if each.attached or any(part.owned for part in each.partitions)}
        return attached != self._queues or any(each.in_flight for each in figures) or any(map(self._moves, figures))

    @property
    def is_waiting(self) -> bool:
        """Whether an event of an ordered handler waits for a time."""
        return any(part.waiting for each in self._figures.values() for part in each.partitions)

    async def fire(self) -> float | None:
        """Do what is due in the databases. Returns when the next is, by the harness's clock."""
        if self.task.done():
            return None
        clock = self._stage.clock
        due = [at for companion in self._companions if (at := await companion.fire()) is not None]
        return clock.time() + min(due) - clock.now().timestamp() if due else None

    async def look(self) -> None:
        """Note where the sagas stand."""
        for companion in self._companions if not self.task.done() else ():
            if isinstance(companion, Sweeper):
                self._stage.seen.sagas |= await companion.standing()

    async def stop(self) -> None:
        """Let what runs end, and give back the rest."""
        self._is_stopping = True
        self._worker.stop()
        await asyncio.wait({self.task})

    async def _run(self) -> None:
        while not self._is_stopping:
            life = Life(self._stage.faults, self._crash)
            await self._worker.run(dependencies=self._dependencies(life))
            if not life.has_crashed:
                return

    def _dependencies(self, life: Life) -> Dependencies:
        stage = self._stage

        async def open_broker(_: Settings, emit: Emit) -> Broker:
            life.broker = WatchedBroker(life, stage.server.url, emit)
            return life.broker

        def open_claims(_: Settings, emit: Emit) -> OpenClaims:
            lease = life.lease = Lease(stage.claims, seconds=None, emit=emit)
            return OpenClaims(
                WatchedClaims(stage.claims, life), lease, _no_findings, WatchedBoard(stage.claims.board, life)
            )

        def hear(fact: Fact) -> None:
            if not life.has_crashed:
                self._follow(fact)
                stage.seen.hear(fact)

        self._companions = []
        return Dependencies(
            settings=self._settings,
            clock=stage.clock,
            luck=stage.luck.random,
            open_broker=open_broker,
            open_claims=open_claims,
            middleware=(stage.seen.watch,),
            listeners=(hear,),
            relays_at_once=True,
            jobs=stage.jobs,
            companions=self._companions,
        )

    def _crash(self, life: Life) -> None:
        if life.lease is not None:
            self._stage.claims.stop(life.lease.owner)
        self._figures.clear()
        self._has_started = False
        self._worker.stop(now=True)

    def _follow(self, fact: Fact) -> None:
        match fact:
            case Started():
                self._has_started = True
                self._stage.seen.changed.set()
            case ConsumerStarted(queue, figures):
                self._figures[queue] = figures
            case Settled() if (task := asyncio.current_task()) is not None:
                task.add_done_callback(lambda _: self._stage.seen.changed.set())  # it is no longer in flight then
            case _:
                pass

    def _moves(self, figures: QueueFigures) -> bool:
        if figures.partitions:
            return any(map(self._is_ordering, figures.partitions))
        queue, held = self._stage.server.queues.get(figures.queue), self._stage.faults.held_of(figures.queue)
        return queue is None or queue.unsettled > held or (bool(queue.ready) and not held)

    def _is_ordering(self, part: PartitionFigures) -> bool:
        """Whether the owner of an ordered queue has something to do. It keeps the record of its ledger in hand."""
        queues = self._stage.server.queues
        queue, ledger = queues.get(part.queue), queues.get(ledger_queue(part.queue))
        if queue is None or ledger is None or not part.owned or part.moving:
            return True
        is_taking = bool(queue.ready or ledger.ready) and part.in_hand < PREFETCH
        is_handing_on = part.is_intake and bool(part.in_hand or part.in_ledger)
        return is_taking or is_handing_on or queue.unsettled > part.in_hand or ledger.unsettled > part.in_ledger + 1


async def _no_findings() -> list[Endangered]:
    return []
