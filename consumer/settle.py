"""Making an outcome durable, before its delivery is settled: that is the ack, which `pipeline.py` sends.

`settled` makes the fact about a delivery that ended, from which log line, metrics and trace derive.
"""

import asyncio
from asyncio import CancelledError
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol, assert_never

from ..broker import Pause, sleep
from ..events import Message, PublishError
from ..events.headers import TRACEPARENT
from ..idempotency import Claim, Completed, Mark
from ..telemetry import CopyHeld, Settled
from .copies import dead_letter, postponed_copy
from .dependencies import Tools
from .failure import describe_failure, summary
from .handler import HandlerSpec
from .in_flight import InFlight
from .outcome import Ack, DeadLetter, Ending, GiveBack, Postpone, Succeeded
from .run import Ran

_HOLD: Final = Pause(0.5, 30.0)  # between two tries to publish a copy
_RELEASE_PATIENCE: Final = 2.0  # seconds an interrupted delivery has to release its claim


class Order(Protocol):
    """How the events of an ordered handler wait. Each method raises `OwnershipLost`."""

    def key(self, flight: InFlight) -> str:
        """Return the key of an event that is to be dead-lettered."""
        ...

    async def postpone(self, flight: InFlight, ending: Postpone, traced: str | None) -> None:
        """Return once the next attempt is durable, before all later events of its key."""
        ...

    async def hold(self, flight: InFlight, ending: DeadLetter) -> None:
        """Return once it is durable that a dead letter holds its key."""
        ...


@dataclass(frozen=True, slots=True)
class Settler:
    """Makes the outcomes of one handler's deliveries durable."""

    spec: HandlerSpec
    tools: Tools
    order: Order | None = None

    async def make_durable(self, flight: InFlight, ending: Ending, mark: Mark | None = None) -> Completed | None:
        """Complete or release the claim, and leave a copy, confirmed.

        The order is the promise. A completion comes before the ack. A claim is released before the copy that will
        claim again; in an ordered queue after it, since there the copy waits for the ack. A dead letter keeps its claim
        until it is one, so that a crash now does not forget the crashes.
        """
        claim, event_id = flight.claimed.claim, flight.incoming.metadata.event_id
        match ending:
            case Ack():
                return None if claim is None else await self.tools.claims.complete(claim, mark)
            case GiveBack():
                pass  # its claim is let go just before it goes back
            case Postpone() if self.order is not None:
                await self.order.postpone(flight, ending, self._traced())
                if claim is not None:
                    await self.tools.claims.release(claim)
            case Postpone():
                if claim is not None:
                    await self.tools.claims.release(claim)
                await publish_copy(self.tools, self.spec.queue, event_id, self._postponed(flight, ending))
            case DeadLetter():
                await publish_copy(self.tools, self.spec.queue, event_id, self._dead_letter(flight, ending))
                if self.order is not None:
                    await self.order.hold(flight, ending)
                await self.let_go(claim, forget=True)  # so that a replay runs; a stop does not undo what is durable
            case _:
                assert_never(ending)
        return None

    async def let_go(self, claim: Claim | None, *, forget: bool = False) -> None:
        """Release a claim in a bounded time, however often this is cancelled. A completed one stays completed."""
        if claim is None:
            return
        releasing = asyncio.ensure_future(self.tools.claims.release(claim, forget=forget))
        with suppress(CancelledError):
            await asyncio.wait({releasing}, timeout=_RELEASE_PATIENCE)

    def _postponed(self, flight: InFlight, ending: Postpone) -> Message:
        queue, traced = self.spec.queue, self._traced()
        now, budget = self.tools.clock.now(), self.tools.broker.header_budget
        return postponed_copy(flight.incoming, ending, queue=queue, now=now, budget=budget, traced=traced)

    def _traced(self) -> str | None:
        """Return this attempt in its trace, where one is recorded."""
        spans = self.tools.spans
        return spans.current().get(TRACEPARENT) if spans.are_recorded else None

    def _dead_letter(self, flight: InFlight, ending: DeadLetter) -> Message:
        queue, handler = self.spec.queue, self.spec.name
        now, budget = self.tools.clock.now(), self.tools.broker.header_budget
        key = None if self.order is None else self.order.key(flight)
        return dead_letter(flight.incoming, ending, queue=queue, handler=handler, now=now, budget=budget, order_key=key)


async def publish_copy(tools: Tools, queue: str, event_id: str, copy: Message) -> None:
    """Return once a copy is confirmed and routed. Until then the original is held and the copy tried again."""
    failures = 0
    while True:
        try:
            await tools.broker.publish(copy, timeout=None)
            return
        except PublishError as error:
            pause = _HOLD.seconds(failures, tools.luck())
            failures += 1
            tools.emit(CopyHeld(queue, event_id, str(error), pause))
        await sleep(tools.clock, pause)


def settled(flight: InFlight, ran: Ran, ending: Ending, completion: Completed | None, spec: HandlerSpec) -> Settled:
    """Return the one fact about a delivery that came to its end."""
    incoming, claimed = flight.incoming, flight.claimed
    fact = Settled(spec.queue, spec.name, incoming.metadata, incoming.history.attempt, "handled", ran.seconds)
    fact.claim, fact.claim_seconds, fact.completion = claimed.result, claimed.seconds, completion
    if isinstance(ran.outcome, Succeeded):
        fact.published = ran.outcome.published
    match ending:
        case Ack(outcome):
            fact.outcome = outcome
        case GiveBack():
            fact.outcome = "given_back"
        case Postpone(delay, failure):
            fact.outcome, fact.delay = "postponed", delay
            if failure is not None:
                fact.error, fact.error_type = summary(failure), type(failure).__name__
        case DeadLetter(reason, failure):
            described = describe_failure(failure)
            fact.outcome, fact.reason = "dead_lettered", reason
            fact.error, fact.error_type = described.message, type(failure).__name__
            fact.traceback = described.traceback
            if reason == "crashed":
                fact.claim = "crashed"
        case _:
            assert_never(ending)
    return fact
