"""Messages whose outcome is durable but whose ack may be lost with its connection: their redelivery is acked unrun.

Nobody confirms an ack. But the broker leaves no more than `prefetch` deliveries of a queue unsettled, so no more acks
than that can be on their way: each handler remembers a few times as many of its own messages, and no more.
"""

from collections import OrderedDict
from typing import TypeAlias

from ..events import Message, body_digest, headers

Identity: TypeAlias = tuple[object, ...]


def identity_of(message: Message) -> Identity:
    """What a redelivery of the same message shares with it, and no other message does."""
    carried = message.headers
    return (
        message.message_id or body_digest(message.body),
        str(carried.get(headers.EVENT_ID)),
        str(carried.get(headers.ATTEMPT)),
        message.routing_key,
    )


class Remembered:
    """A bounded set: at most `limit` identities, the oldest forgotten first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: OrderedDict[Identity, None] = OrderedDict()

    def add(self, identity: Identity) -> None:
        self._known[identity] = None
        if len(self._known) > self._limit:
            self._known.popitem(last=False)

    def take(self, identity: Identity) -> bool:
        """Whether it is known; it is forgotten then."""
        return bool(self._known) and self._known.pop(identity, self) is None
