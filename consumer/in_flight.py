"""Deliveries in flight, and how a redelivery of the same message is recognised.

Nobody confirms an ack. A message whose outcome is durable but whose ack was lost with its connection is delivered
again, and then acked without a run. The broker leaves no more than `prefetch` deliveries of a queue unsettled, so no
more acks than that can be on their way: each handler remembers a few times as many of its messages, and no more.
"""

import asyncio
from collections.abc import Callable, Collection, Coroutine, Mapping
from contextvars import Context
from typing import Any, Final, Literal, Protocol, TypeAlias

from ..broker import Delivery
from ..events import Envelope, Headers, Incoming, Message, Metadata, headers
from ..idempotency import Step
from ..telemetry import Fact, InboxResult
from .claims import NOT_CLAIMED, Claimed
from .slots import Slot

Identity: TypeAlias = tuple[object, ...]

_LOOK_AGAIN: Final = 1.0  # seconds between two looks at what is in flight


def identity_of(message: Message) -> Identity | None:
    """Return what a redelivery of a message shares with it, and no other message does.

    None for a message without `message_id`: two of those may be equal and yet be two.
    """
    if not message.message_id:
        return None
    event_id, attempt = message.headers.get(headers.EVENT_ID), message.headers.get(headers.ATTEMPT)
    if event_id is not None and type(event_id) is not str:  # a header may be anything, also what cannot be looked up
        event_id = repr(event_id)
    if attempt is not None and type(attempt) is not int:
        attempt = repr(attempt)
    return message.message_id, event_id, attempt, message.routing_key, hash(message.body)


class RecentlySettled:
    """A bounded set of messages: the last `limit` identities and at most as many before them."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._newer: set[Identity] = set()
        self._older: set[Identity] = set()

    def add(self, identity: Identity | None) -> None:
        """Remember a message."""
        if identity is None:
            return
        if len(self._newer) >= self._limit:
            self._older, self._newer = self._newer, set()
        self._newer.add(identity)

    def take(self, identity: Identity | None) -> bool:
        """Return whether a message is remembered, and forget it."""
        if identity is None or not (identity in self._newer or identity in self._older):
            return False
        self._newer.discard(identity)
        self._older.discard(identity)
        return True


class InFlight:
    """One delivery in flight. A redelivery of the same message replaces `delivery`, until it `is_settling`.

    `cancelled_for`: why `task` was cancelled; the handler was over its time, or the worker stops. `is_abandoned`: the
    handler did not end even then, so the delivery goes on in another task, which is `task` from then on. `run` is the
    last one of its handler.
    """

    task: "asyncio.Task[None]"

    def __init__(
        self, delivery: Delivery, incoming: Incoming, identity: Identity | None, slot: Slot, context: Context
    ) -> None:
        self.delivery, self.incoming, self.identity = delivery, incoming, identity
        self.slot, self.context = slot, context
        self.claimed: Claimed = NOT_CLAIMED
        self.cancelled_for: Literal["time", "stop"] | None = None
        self.is_abandoned = self.is_settling = False
        self.run: Run | None = None

    def cancel(self, reason: Literal["time", "stop"]) -> None:
        """Cancel the task of this delivery."""
        self.cancelled_for = reason
        self.task.cancel()


async def until_ended(running: Callable[[], Collection["asyncio.Task[None]"]]) -> None:
    """Return once nothing is `running`. It is asked again and again: a delivery whose handler is abandoned goes on in
    another task."""
    while tasks := running():
        await asyncio.wait(tasks, timeout=_LOOK_AGAIN)


class Turn(Protocol):
    """The turn of an event of an ordered handler."""

    @property
    def key(self) -> str: ...

    @property
    def fence(self) -> int: ...


class Run:
    """One run of a handler: the `owner` of its claim, the headers that its message `carried`, and whether its event
    brought an id; then the messages it published, `pending` until it has returned, the threads it runs in that have not
    ended, the calls that middleware made of it, and whether it is over.

    Within a transaction, `row` is its inbox row, `read` is what was read with it, `events` are what it published, each
    with its delay and with the name and the version of the aggregate that recorded it, if one did, `raised` is what its
    function raised, `inbox` what the inbox said of its event, `incoming`, and `facts` are emitted after the commit.
    `turn` is that of an event of an ordered handler.

    Of a followed event, `followed` are the events it published outside a transaction, each with its delay, and
    `handled_as` is the step that it takes on the board of its request once it is handled.
    """

    def __init__(self, owner: bytes, incoming: Incoming) -> None:
        self.owner, self.incoming = owner, incoming
        self.carried: Headers = incoming.message.headers
        self.has_id = incoming.has_id
        self.pending: list[Message] = []
        self.threads: list[asyncio.Future[Any]] = []
        self.calls: list[Coroutine[Any, Any, Any]] = []
        self.is_over = False
        self.events: list[tuple[Envelope, float | None, str | None, int | None]] | None = None
        self.raised: Any = None
        self.read: tuple[Any, ...] | None = None
        self.row: Mapping[str, Any] | None = None
        self.inbox: InboxResult | None = None
        self.facts: list[Fact] = []
        self.turn: Turn | None = None
        self.followed: list[tuple[Metadata, float | None]] = []
        self.handled_as: Step = "lost"

    def begin_transaction(self) -> None:
        """Forget what an earlier transaction of this run left."""
        self.events, self.raised, self.inbox, self.facts = [], None, None, []
        self.read = self.row = None
        self.handled_as = "lost"
