"""The life of a delivery, top to bottom: read, handle, decide, leave a copy, settle, tell."""

import random
import time
from asyncio import CancelledError
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from ..broker import Broker, Delivery
from ..config import Settings
from ..events import (
    History,
    Message,
    Metadata,
    Reject,
    RetryLater,
    TooLarge,
    UnknownType,
    Unreadable,
    UnsupportedVersion,
    read_history,
    read_metadata,
)
from ..telemetry import Emit, Settled, SettlementStale, event_context
from .context import Context
from .copies import dead_letter, postponed_copy
from .decide import Expired, decide
from .failure import describe_failure, summary
from .handler import Handler, HandlerSpec
from .invoke import invoke
from .outcome import (
    Ack,
    AlreadyDone,
    DeadLetter,
    Decision,
    Failed,
    GiveBack,
    Interrupted,
    Outcome,
    Postpone,
    Refused,
    Succeeded,
)
from .remembered import Remembered, identity_of
from .reports import report
from .settle import publish_copy, settle


@dataclass(slots=True, eq=False)
class Job:
    """One delivery being carried. A redelivery of the same message replaces `delivery` while the handler runs on."""

    delivery: Delivery
    free_slot: Callable[["Job"], None]
    lingering: list[Any] = field(default_factory=list)
    ran_seconds: float = 0.0
    slot_is_free: bool = False


@dataclass(frozen=True, slots=True)
class Pipeline:
    """What one handler's deliveries go through."""

    spec: HandlerSpec
    handler: Handler
    broker: Broker
    settings: Settings
    source: str
    state: Any
    done: Remembered
    emit: Emit

    async def carry(self, job: Job) -> None:
        """Carry one delivery to its end. Returns when it is acked, given back or known to be stale."""
        message = job.delivery.message
        now = datetime.now(UTC)
        metadata, history = read_metadata(message, now), read_history(message)

        with event_context(metadata, queue=self.spec.queue, handler=self.spec.name, attempt=history.attempt):
            try:
                outcome = await self._outcome(job, metadata, history, now)
                job.free_slot(job)
                decision = self._decide(outcome, metadata, history)
                await self._leave_copy(decision, message, metadata, history)
            except CancelledError:  # the grace period is over: nothing is durable yet, so another worker takes it
                outcome, decision = Interrupted(), GiveBack()

            written = await settle(job.delivery, decision)
            self._remember(job, decision, metadata, written=written)
            self.emit(self._settled(decision, outcome, metadata, history, job.ran_seconds))
            await report(self.broker, message, decision, history.attempt)

    async def _outcome(self, job: Job, metadata: Metadata, history: History, now: datetime) -> Outcome:
        message, policy = job.delivery.message, self.spec.retry
        if job.delivery.redelivered and self.done.take(identity_of(message)):
            return AlreadyDone()
        if len(message.body) > self.settings.worker.max_body:
            size, most = len(message.body), self.settings.worker.max_body
            return Refused(TooLarge(f"the body has {size} bytes; HOLDFAST_WORKER__MAX_BODY allows {most}"), "too-large")
        if policy.max_age is not None and (age := (now - metadata.time).total_seconds()) > policy.max_age:
            return Refused(Expired(f"the event is {age:.0f} s old; max_age is {policy.max_age:g} s"), "expired")
        try:
            event = self.spec.read(message, metadata)
        except UnknownType as error:
            return Refused(error, "unknown-type")
        except UnsupportedVersion as error:
            return Refused(error, "unsupported-version")
        except Unreadable as error:
            return Refused(error, "unreadable")
        return await self._handle(job, event, metadata, history)

    async def _handle(self, job: Job, event: Any, metadata: Metadata, history: History) -> Outcome:
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
                await self.broker.publish(published, timeout=None)
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

    async def _leave_copy(self, decision: Decision, message: Message, metadata: Metadata, history: History) -> None:
        now, queue, budget = datetime.now(UTC), self.spec.queue, self.broker.header_budget
        match decision:
            case Postpone():
                copy = postponed_copy(message, metadata, history, decision, queue=queue, now=now, budget=budget)
            case DeadLetter():
                handler = self.spec.name
                copy = dead_letter(
                    message, metadata, history, decision, queue=queue, handler=handler, now=now, budget=budget
                )
            case Ack() | GiveBack():
                return
        await publish_copy(self.broker, copy, queue=queue, event_id=metadata.event_id, emit=self.emit)

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
        )

    def _settled(
        self, decision: Decision, outcome: Outcome, metadata: Metadata, history: History, seconds: float
    ) -> Settled:
        spec, attempt = self.spec, history.attempt
        match decision:
            case Ack(settled):
                published = outcome.published if isinstance(outcome, Succeeded) else 0
                return Settled(spec.queue, spec.name, metadata, attempt, settled, seconds, published=published)
            case GiveBack():
                return Settled(spec.queue, spec.name, metadata, attempt, "given_back", seconds)
            case Postpone(delay, error):
                kind, text = type(error).__name__, summary(error)
                return Settled(
                    spec.queue,
                    spec.name,
                    metadata,
                    attempt,
                    "postponed",
                    seconds,
                    delay=delay,
                    error=text,
                    error_type=kind,
                )
            case DeadLetter(reason, error):
                told = describe_failure(error)
                return Settled(
                    spec.queue,
                    spec.name,
                    metadata,
                    attempt,
                    "dead_lettered",
                    seconds,
                    reason=reason,
                    error=told.message,
                    error_type=type(error).__name__,
                    traceback=told.traceback,
                )
