"""Deliveries in flight, and how a redelivery of the same message is recognised.

Nobody confirms an ack. A message whose outcome is durable but whose ack was lost with its connection is delivered
again, and then acked without a run. The broker leaves no more than `prefetch` deliveries of a queue unsettled, so no
more acks than that can be on their way: each handler remembers a few times as many of its messages, and no more.
"""

import asyncio
import contextvars
from collections import OrderedDict
from typing import Literal, TypeAlias

from ..broker import Delivery
from ..events import Incoming, Message, headers
from .claims import NOT_CLAIMED, Claimed
from .slots import Slot

Identity: TypeAlias = tuple[object, ...]


def identity_of(message: Message) -> Identity | None:
    """Return what a redelivery of a message shares with it, and no other message does.

    None for a message without `message_id`: two of those may be equal and yet be two.
    """
    if not message.message_id:
        return None
    event_id, attempt = message.headers.get(headers.EVENT_ID), message.headers.get(headers.ATTEMPT)
    if type(event_id) is not str:  # a header may be anything, and not everything can be looked up
        event_id = repr(event_id)
    if attempt is not None and type(attempt) is not int:
        attempt = repr(attempt)
    return message.message_id, event_id, attempt, message.routing_key, hash(message.body)


class RecentlySettled:
    """A bounded set of messages: at most `limit` identities, the oldest forgotten first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._identities: OrderedDict[Identity, None] = OrderedDict()

    def add(self, identity: Identity | None) -> None:
        """Remember a message."""
        if identity is None:
            return
        self._identities[identity] = None
        if len(self._identities) > self._limit:
            self._identities.popitem(last=False)

    def take(self, identity: Identity | None) -> bool:
        """Return whether a message is remembered, and forget it."""
        return identity is not None and self._identities.pop(identity, self) is None


class InFlight:
    """One delivery in flight. A redelivery of the same message replaces `delivery`, until it `is_settling`.

    `cancelled_for`: why `task` was cancelled; the handler was over its time, or the worker stops. `is_abandoned`: the
    handler did not end even then, so the delivery goes on in another task, which is `task` from then on.
    """

    __slots__ = (
        *("cancelled_for", "claimed", "context", "delivery", "identity", "incoming", "is_abandoned", "is_settling"),
        *("slot", "task"),
    )

    def __init__(
        self,
        delivery: Delivery,
        incoming: Incoming,
        identity: Identity | None,
        slot: Slot,
        context: contextvars.Context,
    ) -> None:
        self.delivery, self.incoming, self.identity = delivery, incoming, identity
        self.slot, self.context = slot, context
        self.claimed: Claimed = NOT_CLAIMED
        self.cancelled_for: Literal["time", "stop"] | None = None
        self.is_abandoned = self.is_settling = False
        self.task: asyncio.Task[None]

    def cancel(self, reason: Literal["time", "stop"]) -> None:
        """Cancel the task of this delivery."""
        self.cancelled_for = reason
        self.task.cancel()
