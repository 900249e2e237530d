"""Topology as data: exchanges, queues and bindings as values; whoever holds one may compare, print or declare it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

ExchangeKind = Literal["topic", "fanout", "direct", "headers"]


@dataclass(frozen=True, slots=True)
class Exchange:
    name: str
    kind: ExchangeKind = "topic"
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Queue:
    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Binding:
    """From an exchange to a queue, or (`to_exchange`) to another exchange.

    A headers exchange hands on what has all of `headers`, the others look at the routing key.
    """

    source: str
    destination: str
    key: str
    to_exchange: bool = False
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Topology:
    """Everything durable that a process needs on the broker, in the order it is declared."""

    exchanges: tuple[Exchange, ...] = ()
    queues: tuple[Queue, ...] = ()
    bindings: tuple[Binding, ...] = ()

    def __add__(self, other: "Topology") -> "Topology":
        return Topology(
            _distinct(self.exchanges + other.exchanges),
            _distinct(self.queues + other.queues),
            _distinct(self.bindings + other.bindings),
        )


_T = TypeVar("_T")


def _distinct(things: tuple[_T, ...]) -> tuple[_T, ...]:
    return tuple(thing for n, thing in enumerate(things) if thing not in things[:n])


DEAD_SUFFIX = ".dead"
DELIVERY_LIMIT = 100
NO_LIMIT = 1_000_000_000
"""A delivery limit that is none. RabbitMQ 4 gives a quorum queue that names no limit one of 20, and drops what passes
it; each look at a dead-letter queue counts as a delivery of everything in it. (-1, "none" on 4, is zero on 3.)"""


def dead_letter_queue(queue: str) -> str:
    """The name of the dead-letter queue of `queue`."""
    return queue + DEAD_SUFFIX


def events_exchange(name: str) -> Topology:
    """The exchange events are published to: topic, durable, routing key = event type."""
    return Topology(exchanges=(Exchange(name),))


def work_queue(name: str, *, kind: Literal["quorum", "classic"], exchange: str, keys: tuple[str, ...]) -> Topology:
    """A handler's queue, its dead-letter queue and its bindings.

    The queue's own dead-lettering points to the same dead-letter queue, only as a backstop: the
    runtime writes dead letters itself. The delivery limit is far above RabbitMQ 4's default of 20,
    because every restart or give-back charges whatever was prefetched.
    """
    dead = dead_letter_queue(name)
    backstop: dict[str, Any] = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead}
    if kind == "quorum":
        arguments = {
            "x-queue-type": "quorum",
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
            "x-delivery-limit": DELIVERY_LIMIT,
            **backstop,
        }
    else:
        arguments = {"x-queue-type": "classic", **backstop}
    return Topology(
        queues=(resting_queue(dead), Queue(name, arguments)),
        bindings=tuple(Binding(exchange, name, key) for key in keys),
    )


def resting_queue(name: str) -> Queue:
    """A queue in which messages rest until somebody decides; they may be looked at as often as one likes."""
    return Queue(name, {"x-queue-type": "quorum", "x-delivery-limit": NO_LIMIT})


REGISTRY = "holdfast.queues"


def registry() -> Topology:
    """Where each worker that starts leaves the names of its queues: AMQP cannot list queues, and whoever looks for dead
    letters has to know where. Bounded; readers remove what is said twice."""
    arguments = {**resting_queue(REGISTRY).arguments, "x-max-length": 10_000, "x-overflow": "drop-head"}
    return Topology(queues=(Queue(REGISTRY, arguments),))
