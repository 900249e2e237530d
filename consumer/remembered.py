"""Messages whose outcome is durable but whose ack may be lost with its connection: their redelivery is acked unrun.

Nobody confirms an ack. But the broker leaves no more than `prefetch` deliveries of a queue unsettled, so no more acks
than that can be on their way: each handler remembers a few times as many of its own messages, and no more.
"""

from collections import OrderedDict
from typing import TypeAlias

from ..events import Message, headers

Identity: TypeAlias = tuple[object, ...]


def identity_of(message: Message) -> Identity | None:
    """What a redelivery of a message shares with it, and no other message does. None for one that brought no
    `message_id`: two of those may be equal and yet be two."""
    if not message.message_id:
        return None
    carried = message.headers.get
    event_id, attempt = carried(headers.EVENT_ID), carried(headers.ATTEMPT)
    if type(event_id) is not str:  # a header may be anything, and not everything can be looked up
        event_id = repr(event_id)
    if attempt is not None and type(attempt) is not int:
        attempt = repr(attempt)
    return message.message_id, event_id, attempt, message.routing_key, hash(message.body)


class Remembered:
    """A bounded set: at most `limit` identities, the oldest forgotten first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: OrderedDict[Identity, None] = OrderedDict()

    def add(self, identity: Identity | None) -> None:
        if identity is None:
            return
        self._known[identity] = None
        if len(self._known) > self._limit:
            self._known.popitem(last=False)

    def take(self, identity: Identity | None) -> bool:
        """Whether it is known; it is forgotten then."""
        return identity is not None and self._known.pop(identity, self) is None
