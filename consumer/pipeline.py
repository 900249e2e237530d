"""The life of a delivery, top to bottom: read, claim, handle, decide, make durable, ack, tell."""

import asyncio
import time
from asyncio import CancelledError
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, assert_never

from ..broker import Broker, Countdown
from ..config import Settings
from ..events import (
    HoldfastError,
    Message,
    Metadata,
    Reject,
    RetryLater,
    TooLarge,
    UnknownType,
    Unreadable,
    UnsupportedVersion,
    forced_by,
)
from ..events.headers import TRACEPARENT
from ..idempotency import (
    Acquired,
    Answer,
    Busy,
    Claim,
    Done,
    Mismatch,
    StoreUnavailable,
    Suspect,
    claim_key,
    fingerprint_of,
)
from ..telemetry import CrashSuspected, Emit, SettlementStale, Spans, bind_event
from .claiming import Claiming
from .context import Context, Surroundings
from .copies import dead_letter, postponed_copy
from .decide import Expired, decide
from .handler import Handler, HandlerSpec
from .invoke import CANCEL_GRACE, invoke
from .job import Job
from .outcome import (
    HANDLED,
    Ack,
    AlreadyDone,
    DeadLetter,
    Decision,
    Failed,
    GiveBack,
    HeldElsewhere,
    Interrupted,
    Outcome,
    Postpone,
    Refused,
    StoreAway,
    Succeeded,
)
from .remembered import Remembered
from .reports import report
from .settle import publish_copy, publish_outbox, settle
from .told import settled

_RELEASE_PATIENCE = 2.0  # seconds an interrupted delivery has to release its claim


class FingerprintMismatch(HoldfastError):
    """The event's key was used for another payload within the window."""


class Crashed(HoldfastError):
    """Each run of this event ended with its worker process."""


@dataclass(frozen=True, slots=True)
class Pipeline:
    """What one handler's deliveries go through. Without `claims` the handler runs however often an event comes."""

    spec: HandlerSpec
    handler: Handler
    broker: Broker
    claims: Claiming | None
    settings: Settings
    surroundings: Surroundings
    done: Remembered
    late: Countdown[Job]
    emit: Emit
    spans: Spans
    luck: Callable[[], float]

    async def carry(self, job: Job) -> None:
        """Carry one delivery to its end. Returns when it is acked, given back or known to be stale."""
        bind_event(job.metadata, job.history.attempt)
        with self.spans.delivery(
            job.delivery.message, job.metadata, job.history, queue=self.spec.queue, tag=job.delivery.tag
        ):
            try:
                outcome = await self._outcome(job)
            except CancelledError:
                outcome = Interrupted()
            if not job.left:
                await self.conclude(job, outcome)

    async def conclude(self, job: Job, outcome: Outcome) -> None:
        """Decide, make durable, settle, tell."""
        job.host.free_slot(job)
        decision = self._decide(job, outcome)
        try:
            await self._make_durable(job, decision)
        except CancelledError:  # the grace period is over: nothing is durable yet, so another worker takes it
            decision = GiveBack()
            await self._let_go(job)

        job.is_settling = True
        written = await settle(job.delivery, decision)
        self._remember(job, decision, written=written)
        self.emit(settled(job, decision, outcome, self.spec))
        await report(self.broker, job, decision, self.emit)

    async def _outcome(self, job: Job) -> Outcome:
        message, metadata = job.delivery.message, job.metadata
        if job.delivery.redelivered and self.done.take(job.identity):
            return AlreadyDone()
        if len(message.body) > self.settings.worker.max_body:
            size, most = len(message.body), self.settings.worker.max_body
            return Refused(TooLarge(f"the body has {size} bytes; HOLDFAST_WORKER__MAX_BODY allows {most}"), "too-large")
        try:
            event = self.spec.read(message, metadata)
        except UnknownType as error:
            return Refused(error, "unknown-type")
        except UnsupportedVersion as error:
            return Refused(error, "unsupported-version")
        except Unreadable as error:
            return Refused(error, "unreadable")
        if self.claims is None:
            return await self._handle(job, event)
        return await self._claimed(self.claims, job, event)

    async def _claimed(self, claims: Claiming, job: Job, event: Any) -> Outcome:
        try:
            wish = self._wish(claims, job.delivery.message, event, job.metadata)
        except Exception as error:  # noqa: BLE001 (the user's key function)
            return Refused(error, "refused")
        try:
            answer = await self._claim(claims, job, wish)
            if isinstance(answer, Suspect):
                self.emit(CrashSuspected(self.spec.queue, job.metadata.event_id, answer.crashes))
                await job.host.be_alone(job)
                answer = await self._claim(claims, job, wish, alone=True)
        except StoreUnavailable:
            if self.spec.pauses(self.settings):
                job.claimed, job.claim = "unavailable", None
                await job.host.until_followed()  # given back before that, it would come again at once
                return StoreAway()
            job.claimed = "unprotected"
            return await self._handle(job, event)

        return await self._answered(answer, job, event)

    async def _answered(self, answer: Answer, job: Job, event: Any) -> Outcome:
        match answer:
            case Acquired(crashes) if crashes >= self.spec.retry.max_crashes:
                job.claimed = "crashed"
                return Refused(Crashed(f"{crashes} runs of this event ended with their worker process"), "crashed")
            case Acquired():
                job.claimed = "acquired"
                return await self._handle(job, event)
            case Done():
                job.claimed = "duplicate"
                return AlreadyDone()
            case Mismatch():
                job.claimed = "mismatch"
                return Refused(
                    FingerprintMismatch("this key came before, with another payload"), "fingerprint-mismatch"
                )
            case Busy(free_in):
                job.claimed = "busy"
                runs = 1 + self.spec.retry.immediate
                longest = runs * (self.spec.timeout + CANCEL_GRACE) + 3 * self.settings.idempotency.lease
                return HeldElsewhere(job.history.held_for, longest, free_in)
            case Suspect():
                raise AssertionError("who claims alone is never told to be alone")
            case _:
                assert_never(answer)

    def _wish(self, claims: Claiming, message: Message, event: Any, metadata: Metadata) -> Claim:
        """By default an event is its source and its id; `key=` of the handler says otherwise."""
        own_key = self.spec.key_of(event)
        identity: tuple[str, ...] = (metadata.source, metadata.event_id) if own_key is None else ("key", "", own_key)
        if (forced := forced_by(message.headers)) is not None:
            identity = (*identity, "forced", forced)
        key = claim_key(self.settings.idempotency.prefix, self.spec.queue, *identity)
        return claims.wish(key, fingerprint_of(message, metadata, own_key=own_key is not None))

    async def _claim(self, claims: Claiming, job: Job, wish: Claim, *, alone: bool = False) -> Answer:
        started = time.perf_counter()
        job.claim = wish  # before it is asked for: who is interrupted may hold it already
        answer = await claims.claim(wish, alone=alone, max_crashes=self.spec.retry.max_crashes)
        job.claim_seconds += time.perf_counter() - started
        if not isinstance(answer, Acquired):
            job.claim = None
        return answer

    async def _handle(self, job: Job, event: Any) -> Outcome:
        longest = self.spec.retry.max_age
        if longest is not None and (age := self._age(job.metadata)) > longest:
            return Refused(Expired(f"the event is {age:.0f} s old; max_age is {longest:g} s"), "expired")
        context = Context(job.metadata, job.history.attempt, self.surroundings, redelivered=job.delivery.redelivered)
        job.began = time.perf_counter()
        try:
            for run in range(1 + self.spec.retry.immediate):
                try:
                    await invoke(self.handler, event, context, job, self.late)
                    break
                except Exception as error:
                    if run == self.spec.retry.immediate or isinstance(error, Reject | RetryLater):
                        raise
                    context = context.again()
            if outbox := context.take_outbox():
                patience = self.settings.broker.publish_timeout
                await publish_outbox(self.broker, outbox, patience=patience, emit=self.emit, spans=self.spans)
        except RetryLater as signal:
            return Failed(signal, signal.after)
        except Reject as signal:
            return Refused(signal, "refused")
        except CancelledError:
            return Interrupted()
        except BaseException as error:  # noqa: BLE001 (whatever a handler raises has a defined end)
            return Failed(error)
        finally:
            job.ran_seconds = time.perf_counter() - job.began
            job.lingering = context.lingering
        return Succeeded(len(outbox))

    def _decide(self, job: Job, outcome: Outcome) -> Decision:
        if isinstance(outcome, Succeeded):  # nothing to weigh
            return HANDLED
        return decide(
            outcome,
            attempt=job.history.attempt,
            age=self._age(job.metadata),
            policy=self.spec.retry,
            luck=self.luck(),
            longest=self.settings.broker.max_delay,
        )

    async def _make_durable(self, job: Job, decision: Decision) -> None:
        """The order is the promise. A completion comes before the ack; a claim is released before the copy that will
        claim again; a dead letter keeps its claim until it is one, so that a crash now does not forget the crashes."""
        match decision:
            case Ack():
                if job.claim is not None and self.claims is not None:
                    job.completion = await self.claims.complete(job.claim)
            case GiveBack():
                await self._let_go(job)
            case Postpone():
                await self._release(job)
                await self._publish_copy(job, self._copy(job, decision))
            case DeadLetter():
                await self._publish_copy(job, self._copy(job, decision))
                await self._let_go(job, forget=True)  # so that a replay runs; it is durable: a stop does not undo it
            case _:
                assert_never(decision)

    def _copy(self, job: Job, decision: Postpone | DeadLetter) -> Message:
        told = (job.delivery.message, job.metadata, job.history)
        queue, now, budget = self.spec.queue, self.surroundings.clock.now(), self.broker.header_budget
        if isinstance(decision, DeadLetter):
            return dead_letter(*told, decision, queue=queue, handler=self.spec.name, now=now, budget=budget)
        traced = self.spans.current().get(TRACEPARENT)
        return postponed_copy(*told, decision, queue=queue, now=now, budget=budget, traced=traced)

    async def _publish_copy(self, job: Job, copy: Message) -> None:
        await publish_copy(self.broker, copy, queue=self.spec.queue, event_id=job.metadata.event_id, emit=self.emit)

    async def _release(self, job: Job, *, forget: bool = False) -> None:
        if job.claim is not None and self.claims is not None:
            await self.claims.release(job.claim, forget=forget)

    async def _let_go(self, job: Job, *, forget: bool = False) -> None:
        """Release in a bounded time, however often this is cancelled. What has completed stays completed."""
        releasing = asyncio.ensure_future(self._release(job, forget=forget))
        with suppress(CancelledError):
            await asyncio.wait({releasing}, timeout=_RELEASE_PATIENCE)

    def _remember(self, job: Job, decision: Decision, *, written: bool) -> None:
        """A stale delivery, or one whose ack is lost on its way, comes again and is acked without a run."""
        if isinstance(decision, GiveBack):
            return
        self.done.add(job.identity)
        if not written:
            self.emit(SettlementStale(self.spec.queue, job.metadata.event_id))

    def _age(self, metadata: Metadata) -> float:
        """Seconds since the event happened."""
        return (self.surroundings.clock.now() - metadata.time).total_seconds()
