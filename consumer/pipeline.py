"""The life of a delivery, top to bottom: slot, read, claim, decide, run, decide, make durable, ack, emit."""

import asyncio
from asyncio import CancelledError, Task
from typing import Any, Final

from ..broker import Delivery
from ..events import Incoming, UnknownType, Unreadable, UnsupportedVersion, headers, read_foreign, read_written
from ..telemetry import IdGuessed, LogContext, MissingId, PipelineFailed, QueueFigures, SettlementStale
from .claims import Claims
from .context import Surroundings
from .decide import decide, policy_of, refuse_size
from .dependencies import Tools
from .errors import OwnershipLost
from .following import Follower
from .handler import Handler, HandlerSpec
from .in_flight import Identity, InFlight, RecentlySettled, identity_of
from .outcome import (
    GIVE_BACK,
    HANDLED,
    RUN,
    Ack,
    AlreadyDone,
    Decision,
    Ending,
    GiveBack,
    Outcome,
    Ready,
    Refused,
    RunHandler,
    Succeeded,
)
from .receipts import send_receipt
from .run import Ran, Runner
from .settle import Order, Settler, settled
from .slots import Slot

_PAUSE: Final = 5.0  # seconds before a delivery that hit a fault of ours goes back to its queue


class Pipeline:
    """One handler's deliveries in flight, and the steps each of them goes through. Each has a task of its own."""

    def __init__(
        self,
        spec: HandlerSpec,
        handler: Handler,
        around: Surroundings,
        tools: Tools,
        claims: Claims,
        follower: Follower,
        *,
        cancel_grace: float,
        prefetch: int,
        order: Order | None = None,
    ) -> None:
        self.in_flight: dict[Task[None], InFlight] = {}
        self.figures = QueueFigures(spec.queue)
        self._by_identity: dict[Identity, InFlight] = {}
        self._recently_settled = RecentlySettled(2 * prefetch)
        self._returning: set[asyncio.Future[Any]] = set()
        self._knows_of_missing_ids = False
        self._log = LogContext(queue=spec.queue, handler=spec.name)
        self._spec, self._tools, self._claims = spec, tools, claims
        self._readings = spec.readings()
        self._life = self._traced if tools.spans.are_recorded else self._process
        self._policy = policy_of(spec, around.settings, cancel_grace)
        self._settler = Settler(spec, tools, order)
        self._follower = follower
        self._names = around.settings.worker.names
        self._name = f"holdfast delivery of {spec.queue}"  # a task without a name makes one
        left = self._go_on_without_handler
        self._runner = Runner(spec, handler, around, tools, follower, cancel_grace=cancel_grace, on_abandoned=left)

    def start(self, delivery: Delivery, slot: Slot) -> None:
        """Begin the life of a delivery that has a slot."""
        message = delivery.message
        incoming = read_written(message) or read_foreign(message, self._tools.clock.now(), self._names)
        identity, context = identity_of(message), self._log.context.copy()
        flight = InFlight(delivery, incoming, identity, slot, context)
        if identity is not None:
            self._by_identity[identity] = flight
        if not incoming.has_id:
            self._report_missing_id(incoming)
        self.figures.in_flight += 1
        flight.task = task = asyncio.get_running_loop().create_task(
            self._life(flight), name=self._name, context=context
        )
        self.in_flight[task] = flight
        task.add_done_callback(self._end)

    def _report_missing_id(self, incoming: Incoming) -> None:
        """Count each message without an id, and log the first."""
        self._tools.emit(IdGuessed(self._spec.queue))
        if not self._knows_of_missing_ids:
            self._knows_of_missing_ids = True
            self._tools.emit(MissingId(self._spec.queue, incoming.metadata.event_type))

    async def _process(self, flight: InFlight) -> None:
        """The life of a delivery: read, claim, run until it is decided what becomes of it."""
        incoming = flight.incoming
        self._log.bind(incoming.metadata, incoming.history.attempt)
        with flight.slot:
            event, outcome = None, self._read(flight)
            if isinstance(outcome, Ready):
                event = outcome.event
                flight.claimed = await self._claims.acquire(incoming, outcome, flight.slot)
                outcome = flight.claimed.outcome
            ran = Ran(outcome)
            decision = self._decide(flight, ran)
            while isinstance(decision, RunHandler):
                ran = await self._runner.run(event, flight, ran)
                if flight.is_abandoned:  # the delivery went on without its handler
                    return
                decision = HANDLED if isinstance(ran.outcome, Succeeded) else self._decide(flight, ran)
        await self._finish(flight, ran, decision)

    async def _traced(self, flight: InFlight) -> None:
        """The same within a span."""
        incoming, queue, tag = flight.incoming, self._spec.queue, flight.delivery.tag
        with self._tools.spans.delivery(incoming.message, incoming.metadata, incoming.history, queue=queue, tag=tag):
            await self._process(flight)

    async def _finish(self, flight: InFlight, ran: Ran, ending: Ending) -> None:
        """The end of a delivery: make its outcome durable, ack, emit."""
        if flight.slot.is_alone and not isinstance(ending, Ack):
            flight.slot.close()  # the broker may take long to confirm its copy: others run meanwhile
        completion = None
        try:
            if headers.FOLLOW in flight.incoming.message.headers:
                completion = await self._follower.make_durable(self._settler, flight, ran, ending)
            else:
                completion = await self._settler.make_durable(flight, ending)
        except (CancelledError, OwnershipLost):  # nothing is durable yet, so another worker takes it
            ending = GIVE_BACK
        if isinstance(ending, GiveBack):
            await self._settler.let_go(flight.claimed.claim)

        flight.is_settling = True
        delivery = flight.delivery
        if isinstance(ending, GiveBack):
            await delivery.consumer.give_back(delivery)
        else:
            is_acked = await delivery.consumer.ack(delivery)
            self._recently_settled.add(flight.identity)  # the ack may be lost: then the message comes again
            if not is_acked:
                self._tools.emit(SettlementStale(self._spec.queue, flight.incoming.metadata.event_id))
        self._tools.emit(settled(flight, ran, ending, completion, self._spec))
        if headers.REPLAY in flight.incoming.message.headers:
            await send_receipt(self._tools.broker, flight.incoming, ending, self._tools.emit)

    def _read(self, flight: InFlight) -> Outcome:
        incoming = flight.incoming
        if flight.delivery.redelivered and self._recently_settled.take(flight.identity):
            return AlreadyDone()
        if (size := len(incoming.message.body)) > self._policy.max_body:
            return refuse_size(size, self._policy)
        try:
            read = self._readings.get((incoming.metadata.event_type, incoming.metadata.version))
            return Ready(self._spec.read(incoming) if read is None else read(incoming.message))
        except UnknownType as error:
            return Refused(error, "unknown-type")
        except UnsupportedVersion as error:
            return Refused(error, "unsupported-version")
        except Unreadable as error:
            return Refused(error, "unreadable")

    def _decide(self, flight: InFlight, ran: Ran) -> Decision:
        outcome = ran.outcome
        if isinstance(outcome, Ready) and not outcome.crashes and self._policy.retry.max_age is None:
            return RUN  # as `decide` says, for whatever time and luck; so it is with most deliveries
        now, luck = self._tools.clock.now(), self._tools.luck()
        return decide(outcome, flight.incoming, self._policy, runs=ran.runs, now=now, luck=luck)

    def _go_on_without_handler(self, flight: InFlight, ran: Ran) -> None:
        """End a delivery whose handler does not end, in a task of its own. The handler keeps the first one."""
        del self.in_flight[flight.task]
        flight.task = task = asyncio.get_running_loop().create_task(self._abandon(flight, ran), context=flight.context)
        self.in_flight[task] = flight
        task.add_done_callback(self._end)

    async def _abandon(self, flight: InFlight, ran: Ran) -> None:
        ending = self._decide(flight, ran)
        if isinstance(ending, RunHandler):
            raise RuntimeError("a handler that was abandoned is not run again")
        await self._finish(flight, ran, ending)

    def _end(self, task: Task[None]) -> None:
        flight = self.in_flight.pop(task, None)
        if flight is None:  # its handler was abandoned: the delivery ended before
            return
        self.figures.in_flight -= 1
        if flight.slot.is_taken or flight.slot.is_alone:
            flight.slot.close()
        if flight.identity is not None and self._by_identity.get(flight.identity) is flight:
            del self._by_identity[flight.identity]
        if not task.cancelled() and (error := task.exception()) is not None:
            self._tools.emit(PipelineFailed(self._spec.queue, flight.incoming.metadata.event_id, error, _PAUSE))
            self._tools.clock.call_at(self._tools.clock.time() + _PAUSE, self._give_back, flight.delivery)

    def join(self, delivery: Delivery) -> bool:
        """Give a redelivery to the delivery in flight whose place it takes. Returns False if there is none.

        After a lost connection the broker delivers again what a handler still runs for.
        """
        identity = identity_of(delivery.message)
        flight = None if identity is None else self._by_identity.get(identity)
        if flight is None or flight.is_settling or flight.delivery.consumer.is_current(flight.delivery):
            return False
        flight.delivery = delivery
        return True

    async def close(self) -> None:
        """Return once the deliveries that failed are given back."""
        await asyncio.gather(*self._returning)

    def _give_back(self, delivery: Delivery) -> None:
        returning = asyncio.ensure_future(delivery.consumer.give_back(delivery))
        self._returning.add(returning)
        returning.add_done_callback(self._returning.discard)
