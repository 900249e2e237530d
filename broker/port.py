"""What the rest of Holdfast knows of a broker. Two implementations, one contract suite: amqp and memory."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from ..events import Message
from .topology import Topology

Mode: TypeAlias = Literal["declare", "verify", "skip"]


@dataclass(slots=True)
class Delivery:
    """One delivery of a message from a queue. `tag` is valid within `generation` of its consumer alone."""

    message: Message
    queue: str
    tag: int
    generation: int
    redelivered: bool
    consumer: "Consumer"


OnDelivery: TypeAlias = Callable[[Delivery], None]


class Consumer(Protocol):
    """One queue being consumed: on one channel at a time, restored by itself when that is lost."""

    @property
    def attached(self) -> bool:
        """Whether the broker is delivering to it now."""
        ...

    def is_current(self, delivery: Delivery) -> bool:
        """Whether the delivery can still be settled; a stale one will be delivered again."""
        ...

    async def ack(self, delivery: Delivery) -> bool:
        """Take the message off its queue. False where the delivery is stale: nothing was done."""
        ...

    async def give_back(self, delivery: Delivery) -> bool:
        """Return the message to its queue (`basic.reject`, which counts towards the delivery limit on every
        version). False where the delivery is stale."""
        ...

    async def stop(self, *, close: bool) -> None:
        """Take nothing more; with `close` also flush what was settled and leave."""
        ...


@dataclass(frozen=True, slots=True)
class Depth:
    """How many messages are ready in a queue, and how many consumers it has."""

    ready: int
    consumers: int


@dataclass(frozen=True, slots=True)
class Held:
    """A message its queue has lent to a browser. `returns` counts how often it was delivered and came back before,
    where the queue counts that; the header that says so is left out of the message."""

    message: Message
    tag: int
    returns: int


OnHeld: TypeAlias = Callable[[Held], None]


class Browser(Protocol):
    """A queue being read: each message is lent, in order, and stays the queue's until it is removed.

    However this ends (closed, the connection lost, the process killed), what was not removed is back in its queue, in
    its order where the queue had been read to its end; otherwise what was lent may be last. One browser at a time reads
    a queue.
    """

    async def caught_up(self) -> int:
        """Return once all that was ready when reading began has been handed on, with its count.

        Raises `BrokerUnavailable` where the connection is lost before."""
        ...

    async def remove(self, *tags: int) -> bool:
        """Take messages off the queue, their outcome being durable, and return once the broker has heard of it. False
        where the connection is lost: each of them may be back in the queue, or gone."""
        ...

    async def close(self) -> bool:
        """Return what was not removed. False where the connection is lost after something was: that may be back."""
        ...


class Broker(Protocol):
    """A supervised connection to a broker. Made by `open_broker`."""

    @property
    def header_budget(self) -> int:
        """How many bytes the headers of one message may take."""
        ...

    async def declare(self, topology: Topology, mode: Mode = "declare") -> None:
        """Make the broker match `topology`, now and after each reconnect (`declare`), check that its
        names exist (`verify`), or trust that they do (`skip`).

        Raises `TopologyDrift`, `TopologyMissing`, `BrokerUnavailable`."""
        ...

    async def publish(self, message: Message, *, timeout: float | None) -> None:
        """Return once the broker confirmed the message and routed it to a queue.

        With a timeout in seconds: raises `NotConnected` or `PublishTimeout` when it is over. With None it
        waits for a connection and a confirm as long as it takes, sending again whatever a lost
        connection left unknown. Always raises `Unroutable`, `PublishRefused` and `TooLarge` at once."""
        ...

    async def consume(self, queue: str, *, prefetch: int, on_delivery: OnDelivery) -> Consumer:
        """Deliver messages of `queue` to `on_delivery`, at most `prefetch` of them unsettled."""
        ...

    async def count(self, queue: str) -> Depth | None:
        """What is in a queue, without touching it; None where there is no such queue."""
        ...

    async def browse(self, queue: str, on_held: OnHeld) -> Browser:
        """Lend all messages of `queue` to `on_held`, which is called as they come.

        Raises `TopologyMissing`, `QueueInUse` while another browser reads it, `BrokerUnavailable`."""
        ...

    async def close(self) -> None:
        """Close the connections. What is unsettled goes back to its queue."""
        ...
