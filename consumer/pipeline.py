"""The life of a delivery, top to bottom: read, claim, handle, decide, make durable, ack, tell."""

import asyncio
import random
import time
from asyncio import CancelledError
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, assert_never

from ..broker import Broker, Delivery
from ..config import Settings
from ..events import (
    History,
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
    read_history,
    read_metadata,
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
from ..publisher import send
from ..telemetry import ClaimResult, CompletionResult, CrashSuspected, Emit, SettlementStale, Spans, event_context
from .claiming import Claiming
from .context import Context
from .copies import dead_letter, postponed_copy
from .decide import Expired, decide
from .handler import Handler, HandlerSpec
from .invoke import CANCEL_GRACE, invoke
from .outcome import (
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
from .remembered import Remembered, identity_of
from .reports import report
from .settle import publish_copy, settle
from .told import settled

_RELEASE_PATIENCE = 2.0  # seconds an interrupted delivery has to release its claim


class FingerprintMismatch(HoldfastError):
    """The event's key was used for another payload within the window."""


class Crashed(HoldfastError):
    """Each run of this event ended with its worker process."""


@dataclass(slots=True, eq=False)
class Job:
    """One delivery being carried. A redelivery of the same message replaces `delivery` while the handler runs on.
    `be_alone` returns when nothing else runs in this process, `until_followed` when the queue is no longer consumed,
    should the claim store be away."""

    delivery: Delivery
    free_slot: Callable[["Job"], None]
    be_alone: Callable[["Job"], Awaitable[None]]
    until_followed: Callable[[], Awaitable[None]]
    lingering: list[Any] = field(default_factory=list)
    ran_seconds: float = 0.0
    slot_is_free: bool = False
    is_alone: bool = False
    claim: Claim | None = None
    claimed: ClaimResult | None = None
    claim_seconds: float = 0.0
    completion: CompletionResult | None = None


@dataclass(frozen=True, slots=True)
class Pipeline:
    """What one handler's deliveries go through. Without `claims` the handler runs however often an event comes."""

    spec: HandlerSpec
    handler: Handler
    broker: Broker
    claims: Claiming | None
    settings: Settings
    source: str
    state: Any
    done: Remembered
    emit: Emit
    spans: Spans

    async def carry(self, job: Job) -> None:
        """Carry one delivery to its end. Returns when it is acked, given back or known to be stale."""
        message = job.delivery.message
        now = datetime.now(UTC)
        metadata, history = read_metadata(message, now), read_history(message)

        with (
            event_context(metadata, queue=self.spec.queue, handler=self.spec.name, attempt=history.attempt),
            self.spans.delivery(message, metadata, history, queue=self.spec.queue, tag=job.delivery.tag),
        ):
            try:
                outcome = await self._outcome(job, metadata, history)
                job.free_slot(job)
                decision = self._decide(outcome, metadata, history)
                await self._make_durable(job, decision, metadata, history)
            except CancelledError:  # the grace period is over: nothing is durable yet, so another worker takes it
                outcome, decision = Interrupted(), GiveBack()
                await self._let_go(job)

            written = await settle(job.delivery, decision)
            self._remember(job, decision, metadata, written=written)
            self.emit(
                settled(
                    decision,
                    outcome,
                    spec=self.spec,
                    metadata=metadata,
                    attempt=history.attempt,
                    seconds=job.ran_seconds,
                    claim=job.claimed,
                    claim_seconds=job.claim_seconds,
                    completion=job.completion,
                )
            )
            await report(self.broker, message, decision, history.attempt)

    async def _outcome(self, job: Job, metadata: Metadata, history: History) -> Outcome:
        message = job.delivery.message
        if job.delivery.redelivered and self.done.take(identity_of(message)):
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
            return await self._handle(job, event, metadata, history)
        return await self._claimed(self.claims, job, event, metadata, history)

    async def _claimed(self, claims: Claiming, job: Job, event: Any, metadata: Metadata, history: History) -> Outcome:
        try:
            wish = self._wish(claims, job.delivery.message, event, metadata)
        except Exception as error:  # noqa: BLE001 (the user's key function)
            return Refused(error, "refused")
        try:
            answer = await self._claim(claims, job, wish)
            if isinstance(answer, Suspect):
                self.emit(CrashSuspected(self.spec.queue, metadata.event_id, answer.crashes))
                await job.be_alone(job)
                answer = await self._claim(claims, job, wish, alone=True)
        except StoreUnavailable:
            if self.spec.pauses(self.settings):
                job.claimed, job.claim = "unavailable", None
                await job.until_followed()  # given back before that, it would come again at once
                return StoreAway()
            job.claimed = "unprotected"
            return await self._handle(job, event, metadata, history)

        return await self._answered(answer, job, event, metadata, history)

    async def _answered(self, answer: Answer, job: Job, event: Any, metadata: Metadata, history: History) -> Outcome:
        match answer:
            case Acquired(crashes) if crashes >= self.spec.retry.max_crashes:
                job.claimed = "crashed"
                return Refused(Crashed(f"{crashes} runs of this event ended with their worker process"), "crashed")
            case Acquired():
                job.claimed = "acquired"
                return await self._handle(job, event, metadata, history)
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
                since, now = history.held_since, datetime.now(UTC)
                longest = self.spec.timeout + CANCEL_GRACE + 3 * self.settings.idempotency.lease
                return HeldElsewhere((now - since).total_seconds() if since else 0.0, longest, free_in)
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

    async def _handle(self, job: Job, event: Any, metadata: Metadata, history: History) -> Outcome:
        longest, age = self.spec.retry.max_age, (datetime.now(UTC) - metadata.time).total_seconds()
        if longest is not None and age > longest:
            return Refused(Expired(f"the event is {age:.0f} s old; max_age is {longest:g} s"), "expired")
        context = self._context(job, metadata, history)
        started = time.perf_counter()
        try:
            for run in range(1 + self.spec.retry.immediate):
                try:
                    await invoke(self.handler, event, context, self.spec.timeout)
                    break
                except Exception as error:
                    if run == self.spec.retry.immediate or isinstance(error, Reject | RetryLater):
                        raise
                    context = context.again()
            outbox = context.take_outbox()
            for published in outbox:  # confirmed before the ack; the ids are derived, so a repeat publishes the same
                await send(self.broker, published, timeout=None, emit=self.emit, spans=self.spans)
        except RetryLater as signal:
            return Failed(signal, signal.after)
        except Reject as signal:
            return Refused(signal, "refused")
        except CancelledError:
            return Interrupted()
        except BaseException as error:  # noqa: BLE001 (whatever a handler raises has a defined end)
            return Failed(error)
        finally:
            job.ran_seconds = time.perf_counter() - started
            job.lingering = context.lingering
        return Succeeded(len(outbox))

    def _decide(self, outcome: Outcome, metadata: Metadata, history: History) -> Decision:
        age = (datetime.now(UTC) - metadata.time).total_seconds()
        return decide(
            outcome,
            attempt=history.attempt,
            age=age,
            policy=self.spec.retry,
            luck=random.random(),
            longest=self.settings.broker.max_delay,
        )

    async def _make_durable(self, job: Job, decision: Decision, metadata: Metadata, history: History) -> None:
        """The order is the promise. A completion comes before the ack; a claim is released before the copy that will
        claim again; a dead letter keeps its claim until it is one, so that a crash now does not forget the crashes."""
        message, queue, handler = job.delivery.message, self.spec.queue, self.spec.name
        now, budget = datetime.now(UTC), self.broker.header_budget
        match decision:
            case Ack():
                if job.claim is not None and self.claims is not None:
                    job.completion = await self.claims.complete(job.claim)
            case GiveBack():
                await self._release(job)
            case Postpone():
                await self._release(job)
                traced = self.spans.current().get(TRACEPARENT)
                copy = postponed_copy(
                    message, metadata, history, decision, queue=queue, now=now, budget=budget, traced=traced
                )
                await publish_copy(self.broker, copy, queue=queue, event_id=metadata.event_id, emit=self.emit)
            case DeadLetter():
                copy = dead_letter(
                    message, metadata, history, decision, queue=queue, handler=handler, now=now, budget=budget
                )
                await publish_copy(self.broker, copy, queue=queue, event_id=metadata.event_id, emit=self.emit)
                await self._release(job, forget=True)  # so that a replay runs
            case _:
                assert_never(decision)

    async def _release(self, job: Job, *, forget: bool = False) -> None:
        if job.claim is not None and self.claims is not None:
            await self.claims.release(job.claim, forget=forget)

    async def _let_go(self, job: Job) -> None:
        """Release in a bounded time, however often this is cancelled again. What has completed stays completed."""
        releasing = asyncio.ensure_future(self._release(job))
        with suppress(CancelledError):
            await asyncio.wait({releasing}, timeout=_RELEASE_PATIENCE)

    def _remember(self, job: Job, decision: Decision, metadata: Metadata, *, written: bool) -> None:
        """A stale delivery, or one whose ack is lost on its way, comes again and is acked without a run."""
        if isinstance(decision, GiveBack):
            return
        self.done.add(identity_of(job.delivery.message))
        if not written:
            self.emit(SettlementStale(self.spec.queue, metadata.event_id))

    def _context(self, job: Job, metadata: Metadata, history: History) -> Context:
        return Context(
            metadata,
            history,
            queue=self.spec.queue,
            handler=self.spec.name,
            source=self.source,
            redelivered=job.delivery.redelivered,
            state=self.state,
            settings=self.settings,
            lease=self.claims.lease if self.claims is not None else None,
            spans=self.spans,
        )
