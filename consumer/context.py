"""What a handler knows and may do besides its event."""

import asyncio
from collections.abc import Awaitable, Generator
from dataclasses import dataclass
from typing import Any

import structlog

from ..broker import REAL, Clock
from ..config import Settings
from ..events import Event, HoldfastError, Message, Metadata, PublishError, as_published, derived_id, seal
from ..idempotency import Lease
from ..publisher import message_for
from ..telemetry import Spans


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is the same for all deliveries of one handler."""

    queue: str
    handler: str
    source: str
    state: Any
    settings: Settings
    lease: Lease | None
    spans: Spans
    clock: Clock = REAL
    publishes: frozenset[str] | None = None


class Context:
    """The second argument of a handler. `attempt` counts from 1, `redelivered` is what the broker says of it."""

    __slots__ = (
        "_closed",
        "_of",
        "_outbox",
        "_owner",
        "attempt",
        "lingering",
        "metadata",
        "queue",
        "redelivered",
        "state",
    )

    def __init__(self, metadata: Metadata, attempt: int, surroundings: Surroundings, *, redelivered: bool) -> None:
        self.metadata = metadata
        self.attempt = attempt
        self.queue = surroundings.queue
        self.redelivered = redelivered
        self.state = surroundings.state
        self.lingering: list[asyncio.Future[Any]] = []
        self._of = surroundings
        self._owner = surroundings.lease.owner if surroundings.lease is not None else None
        self._outbox: list[Message] = []
        self._closed = False

    @property
    def event_id(self) -> str:
        """The id of the event being handled."""
        return self.metadata.event_id

    @property
    def lease_lost(self) -> bool:
        """Whether this worker's heartbeat stopped reaching the claim store while the handler ran. Another worker may
        be handling the event by now: a long handler looks here before each effect, and raises `RetryLater`."""
        return self._of.lease is not None and not self._of.lease.holds(self._owner)

    @property
    def log(self) -> Any:
        """A structlog logger; every line it writes carries the event's id."""
        return structlog.get_logger(f"holdfast.handler.{self._of.handler}")

    def publish(self, event: Event, *, delay: float | None = None, key: str | None = None) -> Awaitable[Metadata]:
        """Publish an event once this handler has succeeded; nothing is sent if it fails.

        Its id is derived from this event's id, the handler and the position, so that a redelivered event
        publishes the same ids again. `delay` is in seconds. A `def` handler calls this without `await`.

        Raises `PublishError` for what can never be sent: a field with no JSON form, a body too large, a type that the
        handler's `publishes=` leaves out.
        """
        if self._closed:
            raise HoldfastError(f"{self._of.handler}: ctx.publish was called after the handler had ended")
        if self._of.publishes is not None and event.__event_type__ not in self._of.publishes:
            raise PublishError(f"{self._of.handler}: {event.__event_type__} is not among the events of its publishes=")
        event = as_published(event, self._of.settings.publisher.versions)
        identity = derived_id(self.metadata.event_id, self._of.handler, len(self._outbox))
        now, trace = self._of.clock.now(), self._of.spans.current()
        envelope = seal(
            event, source=self._of.source, cause=self.metadata, event_id=identity, key=key, now=now, trace=trace
        )
        self._outbox.append(message_for(envelope, self._of.settings, delay))
        return _Ready(envelope.metadata)

    def again(self) -> "Context":
        """A fresh context for another run in place: what the failed run wanted to publish is forgotten."""
        self._closed = True
        fresh = Context(self.metadata, self.attempt, self._of, redelivered=self.redelivered)
        fresh._owner = self._owner
        fresh.lingering = self.lingering
        return fresh

    def take_outbox(self) -> list[Message]:
        """What the handler published, once; later calls of `publish` are refused."""
        self._closed = True
        return self._outbox


class _Ready:
    """An awaitable that is already there."""

    __slots__ = ("_value",)

    def __init__(self, value: Metadata) -> None:
        self._value = value

    def __await__(self) -> Generator[Any, None, Metadata]:
        yield from ()
        return self._value
