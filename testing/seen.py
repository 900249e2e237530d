"""What the workers of a harness do, written down as it happens."""

import asyncio
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from ..consumer import Context, Handler, HandlerSpec
from ..consumer.outcome import Ended
from ..telemetry import Fact, LoopTurned, PipelineFailed, Settled
from .records import Retried, Run

__tracebackhide__ = True


class HandlerFailed(AssertionError):
    """An assertion inside a handler did not hold. Its cause is the handler's own error, with its own traceback."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What must fail the test: an error, where it came from, and what was being done."""

    error: BaseException
    traceback: TracebackType | None
    during: str


@dataclass(slots=True)
class Seen:
    """`runs` are all calls of handlers in order; `handled` those whose delivery was then acked as handled."""

    handlers: dict[str, HandlerSpec]
    runs: list[Run] = field(default_factory=list)
    handled: list[Run] = field(default_factory=list)
    retries: list[Retried] = field(default_factory=list)
    settled: list[Settled] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    sagas: dict[tuple[str, str], Any] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def watch(self, handler: Handler) -> Handler:
        """A middleware, next to the handler."""

        async def run(event: Any, context: Context) -> Any:
            spec = self.handlers[context.queue]
            self.runs.append(Run(event, context.metadata, spec.name, spec.queue, context.attempt))
            try:
                return await handler(event, context)
            except BaseException as error:
                if fails_a_test(error):
                    where = f"handler {spec.name!r}, attempt {context.attempt} of {context.metadata.event_type}"
                    self.failures.append(Failure(error, error.__traceback__, where))
                raise

        return run

    def hear(self, fact: Fact) -> None:
        """A listener."""
        match fact:
            case LoopTurned():  # it comes even while everything hangs
                return
            case Settled():
                self._note(fact)
            case PipelineFailed(queue, event_id, error, _):
                during = f"a fault of Holdfast itself, with event {event_id} of {queue}"
                self.failures.append(Failure(error, error.__traceback__, during))
            case _:
                pass
        self.changed.set()

    def saga(self, saga: type[Any], key: str) -> Any:
        """Return where a saga stood when all was last quiet."""
        name = saga.graph().saga
        if (name, key) not in self.sagas:
            others = ", ".join(known for kind, known in self.sagas if kind == name) or "none"
            raise AssertionError(f"there is no {saga.__name__} {key!r} after the last settle(); there is: {others}")
        return self.sagas[name, key]

    def raise_failures(self) -> None:
        """Raise the first failure since this was last called, as the cause of a `HandlerFailed`."""
        failures, self.failures = self.failures, []
        if not failures:
            return
        first = failures[0]
        more = f"\n({len(failures) - 1} more failed)" if len(failures) > 1 else ""
        text = f"{first.during}: {type(first.error).__name__}: {first.error}{more}"
        raise HandlerFailed(text) from first.error.with_traceback(_without_ours(first.traceback))

    def _note(self, fact: Settled) -> None:
        self.settled.append(fact)
        ran = self._run_of(fact)
        if fact.outcome == "handled" and ran is not None:
            self.handled.append(ran)
        if fact.outcome == "postponed" and fact.error is not None and fact.delay is not None:
            event = ran.event if ran is not None else None
            where = (fact.handler, fact.queue, fact.attempt)
            self.retries.append(Retried(event, fact.metadata, *where, fact.delay, fact.error))

    def _run_of(self, fact: Settled) -> Run | None:
        wanted = (fact.queue, fact.metadata.event_id, fact.attempt)
        return next(
            (run for run in reversed(self.runs) if (run.queue, run.metadata.event_id, run.attempt) == wanted), None
        )


def _without_ours(traceback: TracebackType | None) -> TracebackType | None:
    """From the handler on: what calls it is of no interest."""
    ours = f"{__name__.partition('.')[0]}."
    while traceback is not None and str(traceback.tb_frame.f_globals.get("__name__", "")).startswith(ours):
        traceback = traceback.tb_next
    return traceback


def fails_a_test(error: BaseException) -> bool:
    """An assertion, or what pytest's `fail` raises: neither an error of the application nor the end of a program."""
    if isinstance(error, AssertionError):
        return True
    ends = (Exception, Ended, asyncio.CancelledError, SystemExit, KeyboardInterrupt, GeneratorExit)
    return not isinstance(error, ends)
