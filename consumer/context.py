"""What a handler knows and may do besides its event."""

import asyncio
from collections.abc import Awaitable, Coroutine, Generator, Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic

import structlog
from typing_extensions import TypeVar

from ..broker import REAL, Clock, with_headers
from ..config import Settings
from ..events import (
    Envelope,
    Event,
    Headers,
    HoldfastError,
    Metadata,
    PublishError,
    as_published,
    derived_id,
    seal,
)
from ..events import headers as h
from ..idempotency import Lease
from ..publisher import message_for
from ..telemetry import Spans

if TYPE_CHECKING:
    from .in_flight import Run

State = TypeVar("State", default=Any)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is the same for all deliveries of one handler."""

    queue: str
    handler: str
    source: str
    state: Any
    settings: Settings
    lease: Lease
    spans: Spans
    clock: Clock = REAL
    publishes: frozenset[str] | None = None


@dataclass(slots=True, eq=False, repr=False)
class Context(Generic[State]):
    """The second argument of a handler: what it may know besides its event, and what it may do.

    Attributes:
        metadata: The event's metadata.
        attempt: The number of this attempt, from 1.
        queue: The handler's queue.
        redelivered: The broker's flag: it delivered the message before.
        state: What the worker's lifespan yielded. Annotated as `Context[Pool]`, it is a `Pool` for type checkers.
    """

    metadata: Metadata
    attempt: int
    queue: str
    redelivered: bool
    state: State
    _surroundings: Surroundings
    _run: "Run"

    @property
    def event_id(self) -> str:
        """The id of the event being handled."""
        return self.metadata.event_id

    @property
    def headers(self) -> dict[str, Any]:
        """The headers that the producer gave the message, without those of Holdfast and of the broker."""
        return {name: value for name, value in self._run.carried.items() if h.is_free(name)}

    @property
    def key(self) -> str | None:
        """The key by which an ordered handler keeps its events in order; of any other handler, the event's own key."""
        turn = self._run.turn
        return self.metadata.key if turn is None else turn.key

    @property
    def fence(self) -> int:
        """A number that rises whenever an ordered queue changes its owner. A write that compares it ("... where fence
        <= $1") lets no earlier owner overwrite a later one.

        Raises `HoldfastError` in a handler that is not ordered.
        """
        if self._run.turn is None:
            raise HoldfastError(
                f"{self._surroundings.handler}: only an ordered handler has ctx.fence; register it with ordered=True"
            )
        return self._run.turn.fence

    @property
    def lease_lost(self) -> bool:
        """Whether this worker's heartbeat stopped reaching the claim store while the handler ran.

        Another worker may be handling the event by now: a long handler looks here before each effect, and raises
        `RetryLater`.
        """
        return not self._surroundings.lease.holds(self._run.owner)

    @property
    def log(self) -> Any:
        """A structlog logger; every line it writes carries the event's id."""
        return structlog.get_logger(f"holdfast.handler.{self._surroundings.handler}")

    def publish(
        self,
        event: Event,
        *,
        delay: float | None = None,
        key: str | None = None,
        event_id: str | None = None,
        headers: Headers | None = None,
    ) -> Awaitable[Metadata]:
        """Publish an event once this handler has succeeded; nothing is sent if it fails.

        With `within=` the event is a row of the handler's transaction, which a relay sends after the commit. A `def`
        handler calls this without `await`.

        Args:
            event: The event.
            delay: Seconds until it is delivered, at most `HOLDFAST_BROKER__MAX_DELAY`.
            key: The aggregate, instead of the event's own key field.
            event_id: The event's id, 1 to 255 bytes. By default it is derived from the id of the event being handled,
                the handler and the position, so that a redelivered event publishes the same ids again. (Where that
                event came without an id, each run publishes new ids.)
            headers: Headers of the application, beside those of Holdfast.

        Returns:
            The metadata of the event.

        Raises:
            PublishError: The event can never be sent: a field has no JSON form, the body is too large, the handler's
                `publishes=` leaves its type out, or a header is not the application's to give.
            HoldfastError: The handler has ended.
        """
        around, run = self._surroundings, self._run
        if run.is_over:
            raise HoldfastError(f"{around.handler}: ctx.publish was called after the handler had ended")
        if around.publishes is not None and event.__event_type__ not in around.publishes:
            raise PublishError(f"{around.handler}: {event.__event_type__} is not among the events of its publishes=")
        event = as_published(event, around.settings.publisher.versions)
        if event_id is None and run.has_id:  # else a new one: another event may have the id that was guessed
            event_id = derived_id(
                self.metadata.event_id, around.handler, len(run.pending if run.events is None else run.events)
            )
        now, trace = around.clock.now(), around.spans.current()
        envelope = seal(
            event,
            source=around.source,
            cause=self.metadata,
            caused_by=around.queue,
            event_id=event_id,
            key=key,
            now=now,
            trace=trace,
        )
        if headers is not None:
            envelope = with_headers(envelope, headers)
        if h.FOLLOW in run.carried:
            carried = {**envelope.headers, h.FOLLOW: run.carried[h.FOLLOW]}
            envelope = Envelope(envelope.metadata, envelope.body, envelope.content_type, carried)
        message = message_for(envelope, around.settings, delay)
        if run.events is None:
            run.pending.append(message)
            if h.FOLLOW in run.carried:
                run.followed.append((envelope.metadata, delay))
        else:
            run.events.append((envelope, delay, None, None))
        return _Ready(envelope.metadata)


class _Ready:
    """An awaitable with its result."""

    __slots__ = ("_value",)

    def __init__(self, value: Metadata) -> None:
        self._value = value

    def __await__(self) -> Generator[Any, None, Metadata]:
        yield from ()
        return self._value


RUNNING: ContextVar["Context | None"] = ContextVar("holdfast_running", default=None)
"""The context of the handler whose transaction is open here."""


def running() -> Context | None:
    """Return the context of the handler whose transaction is open here, if one is."""
    return RUNNING.get()


def record(context: Context, events: Iterable[Event], *, key: str, stream: str, before: int) -> tuple[Metadata, ...]:
    """Publish events of an aggregate in the handler's open transaction, as `Context.publish` does."""
    if (kept := context._run.events) is None:
        raise RuntimeError("an aggregate's events are appended in a transaction")
    metadata = list[Metadata]()
    for version, event in enumerate(events, before + 1):
        context.publish(event, key=key)
        envelope, delay, *_ = kept.pop()
        kept.append((envelope, delay, stream, version))
        metadata.append(envelope.metadata)
    return tuple(metadata)


def run_of(context: Context) -> "Run":
    """Return the run that a context belongs to."""
    return context._run


def clock_of(context: Context) -> Clock:
    """Return the clock of the run that a context belongs to."""
    return context._surroundings.clock


def settings_of(context: Context) -> Settings:
    """Return the settings of the worker that a context belongs to."""
    return context._surroundings.settings


def note_call(context: Context, call: Coroutine[Any, Any, Any]) -> None:
    """Note that middleware called the handler, which has ended once the call has."""
    context._run.calls.append(call)


def note_thread(context: Context, thread: "asyncio.Future[Any]") -> None:
    """Note that the handler runs on in a thread, which cannot be stopped."""
    context._run.threads.append(thread)
