"""What the rest of Holdfast knows of a broker. Two implementations, one contract suite: amqp and memory."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol, TypeAlias

from ..events import Message
from .topology import Topology

Mode: TypeAlias = Literal["declare", "verify", "skip"]
Offset: TypeAlias = int | datetime | Literal["first", "next"]
"""Where to begin to read a stream: at a message's offset, at a time (or some messages earlier), at the first message
that is kept, or at the next one that comes."""

STREAM_OFFSET = "x-stream-offset"
"""The header that says which offset a message of a stream has."""


@dataclass(slots=True, init=False)
class Delivery:
    """One delivery of a message from a queue. `tag` is valid within `generation` of its consumer alone."""

    message: Message
    queue: str
    tag: int
    generation: int
    redelivered: bool
    consumer: "Consumer"

    def __init__(
        self, message: Message, queue: str, tag: int, generation: int, redelivered: bool, consumer: "Consumer"
    ) -> None:
        self.message, self.queue, self.tag = message, queue, tag
        self.generation, self.redelivered, self.consumer = generation, redelivered, consumer


OnDelivery: TypeAlias = Callable[[Delivery], None]


class Consumer(Protocol):
    """One queue being consumed, by which its deliveries are settled: on one channel at a time, and again on another
    when that is lost."""

    @property
    def attached(self) -> bool:
        """Whether the broker delivers to it now."""
        ...

    def is_current(self, delivery: Delivery) -> bool:
        """Return whether the delivery can still be settled; a stale one will be delivered again."""
        ...

    async def ack(self, delivery: Delivery) -> bool:
        """Take the message off its queue. Returns False if the delivery is stale, having done nothing."""
        ...

    async def give_back(self, delivery: Delivery) -> bool:
        """Return the message to its queue. Returns False if the delivery is stale, having done nothing.

        It is `basic.reject`, which counts towards the delivery limit on every release."""
        ...

    async def stop(self, *, close: bool) -> None:
        """Take nothing more; with `close` also flush the acks and close the channel."""
        ...


OnTaken: TypeAlias = Callable[[Message, int, bool], None]
"""Called with a message, its tag, and whether it was delivered before."""

OnLost: TypeAlias = Callable[[str], None]
"""Called once with the reason."""


class Attachment(Protocol):
    """One channel that consumes one queue. It is not restored when it is lost.

    Messages that were not removed return to the queue with the channel: all at once, and in their order."""

    @property
    def is_open(self) -> bool:
        """Whether messages can be removed. A lost channel has none any more."""
        ...

    def remove(self, tag: int) -> bool:
        """Take a message off the queue whose outcome is durable. Returns False if the channel is lost."""
        ...

    async def close(self) -> None:
        """Have the removals taken, then close the channel. The consumer is not cancelled first: the next consumer of a
        queue with a single active one would be given what lies behind the messages that this one still holds."""
        ...


@dataclass(frozen=True, slots=True)
class Depth:
    """How many messages are ready in a queue, and how many consumers it has."""

    ready: int
    consumers: int


@dataclass(frozen=True, slots=True)
class Held:
    """A message that its queue has lent to a browser. `returns` counts how often it was delivered and came back before,
    if the queue counts that; the header that says so is left out of the message."""

    message: Message
    tag: int
    returns: int


OnHeld: TypeAlias = Callable[[Held], None]


class Browser(Protocol):
    """A queue being read: each message is lent, in order, and stays the queue's until it is removed.

    However this ends (closed, the connection lost, the process killed), everything that was not removed returns to the
    queue: in order if the queue was read to its end, otherwise at its tail. One browser at a time reads a queue.
    """

    async def caught_up(self) -> int:
        """Return the number of messages handed on, once all that were ready when reading began have been.

        Raises `BrokerUnavailable` if the connection is lost before."""
        ...

    async def remove(self, *tags: int) -> bool:
        """Take messages off the queue whose outcome is durable; return once the broker has received it.

        Returns False if the connection is lost: each of them may be back in the queue, or gone."""
        ...

    async def close(self) -> bool:
        """Return what was not removed to the queue. Returns False if the connection is lost after something was
        removed, which may then be back."""
        ...


class Sender(Protocol):
    """The part of a broker that publishes."""

    @property
    def header_budget(self) -> int:
        """How many bytes the headers of one message may take."""
        ...

    async def publish(self, message: Message, *, timeout: float | None) -> None:
        """Return once the broker confirmed the message and routed it to a queue.

        With a timeout in seconds: raises `NotConnected` or `PublishTimeout` when it is over. With None it
        waits for a connection and a confirm as long as it takes, sending again whatever a lost
        connection left unknown. Always raises `Unroutable`, `PublishRefused` and `TooLarge` at once."""
        ...


class Reader(Protocol):
    """The part of a broker that looks into queues without taking anything."""

    async def count(self, queue: str) -> Depth | None:
        """Return how much is in a queue; None if there is no such queue. RabbitMQ counts nothing in a quorum queue that
        has no leader, as after a start."""
        ...

    async def browse(self, queue: str, on_held: OnHeld) -> Browser:
        """Lend all messages of `queue` to `on_held`, which is called as they come.

        Raises `TopologyMissing`, `QueueInUse` while another browser reads it, `BrokerUnavailable`."""
        ...


class Broker(Sender, Reader, Protocol):
    """A supervised connection to a broker. Made by `open_broker`."""

    async def declare(self, topology: Topology, mode: Mode = "declare") -> None:
        """Make the broker match `topology`, now and after each reconnect (`declare`), check that it
        exists, bindings included (`verify`), or trust that it does (`skip`).

        Raises `TopologyDrift`, `TopologyMissing`, `BrokerUnavailable`."""
        ...

    async def consume(self, queue: str, *, prefetch: int, on_delivery: OnDelivery) -> Consumer:
        """Deliver messages of `queue` to `on_delivery`, at most `prefetch` of them unsettled."""
        ...

    async def attach(
        self, queue: str, *, prefetch: int, on_taken: OnTaken, on_lost: OnLost, offset: Offset | None = None
    ) -> Attachment:
        """Consume `queue` on a channel of its own, with at most `prefetch` messages in hand (0: 65,535 on RabbitMQ).
        `on_taken` may be called before this returns, `on_lost` is called if the channel is lost.

        A stream is read from an `offset` on, and has a `prefetch`. It keeps what is removed, which only makes room for
        the next message.

        Raises `TopologyMissing`, `BrokerUnavailable`."""
        ...

    async def close(self) -> None:
        """Close the connections. Deliveries that are not settled go back to their queues."""
        ...
