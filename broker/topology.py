"""Topology as data: exchanges, queues and bindings as values that can be compared, printed and declared."""

import re
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, TypeVar

ExchangeKind = Literal["topic", "fanout", "direct", "headers"]


@dataclass(frozen=True, slots=True)
class Exchange:
    """An exchange. One that is `existing` belongs to somebody else: it is looked for and never declared."""

    name: str
    kind: ExchangeKind = "topic"
    arguments: Mapping[str, Any] = field(default_factory=dict)
    existing: bool = False


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue. One that is `existing` belongs to somebody else: it is looked for and never declared."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    existing: bool = False


@dataclass(frozen=True, slots=True)
class Existing:
    """A queue or an exchange that somebody else declares: a handler uses it as it is.

    Attributes:
        name: Its name.
    """

    name: str


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


def _distinct(values: tuple[_T, ...]) -> tuple[_T, ...]:
    return tuple(value for n, value in enumerate(values) if value not in values[:n])


DEAD_SUFFIX = ".dead"
DELIVERY_LIMIT = 100
NO_LIMIT = 1_000_000_000
"""A delivery limit without effect. RabbitMQ 4 limits quorum queues to 20 deliveries unless they name a limit, and drops
messages beyond that; each look at a dead-letter queue delivers everything in it. (-1, no limit on 4, is zero on 3.)"""


def dead_letter_queue(queue: str) -> str:
    """Return the name of the dead-letter queue of `queue`."""
    return queue + DEAD_SUFFIX


def events_exchange(name: str) -> Topology:
    """Return the exchange events are published to: topic, durable, routing key = event type."""
    return Topology(exchanges=(Exchange(name),))


OURS = frozenset(
    {"x-queue-type", "x-dead-letter-exchange", "x-dead-letter-routing-key", "x-dead-letter-strategy", "x-overflow"}
)
"""Arguments of a handler's queue that are Holdfast's to give: without them messages could be lost."""


_NONE: Mapping[str, Any] = {}


def existing_queue(name: str) -> Topology:
    """Return a handler's queue that somebody else declares and binds, and its dead-letter queue, which is ours."""
    return Topology(queues=(resting_queue(dead_letter_queue(name)), Queue(name, existing=True)))


def work_queue(
    name: str,
    *,
    kind: Literal["quorum", "classic"],
    exchange: str,
    keys: tuple[str, ...],
    arguments: Mapping[str, Any] = _NONE,
) -> Topology:
    """Return a handler's queue, its dead-letter queue and its bindings. `arguments` are further ones of the queue.

    The queue's own dead-lettering points to the same dead-letter queue, only as a backstop: the
    runtime writes dead letters itself. The delivery limit is far above RabbitMQ 4's default of 20,
    because every restart or give-back charges whatever was prefetched.
    """
    dead = dead_letter_queue(name)
    backstop: dict[str, Any] = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead}
    if kind == "quorum":
        own = {
            "x-queue-type": "quorum",
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
            "x-delivery-limit": DELIVERY_LIMIT,
            **backstop,
        }
    else:
        own = {"x-queue-type": "classic", **backstop}
    return Topology(
        queues=(resting_queue(dead), Queue(name, {**own, **arguments})),
        bindings=tuple(Binding(exchange, name, key) for key in keys),
    )


LEDGER_SUFFIX = ".ledger"


def ledger_queue(queue: str) -> str:
    """Return the name of the ledger of an ordered queue: its record, and what waits behind events that failed."""
    return queue + LEDGER_SUFFIX


_PARTITION = ".part."
_OF_ORDERED = re.compile(rf"({re.escape(_PARTITION)}\d+\.(\d+|members))?({re.escape(LEDGER_SUFFIX)})?$")


def partition_queues(queue: str, partitions: int) -> tuple[str, ...]:
    """Return the names of the queues from which the events of an ordered handler run: its own queue, if one is all."""
    if partitions == 1:
        return (queue,)
    return tuple(f"{queue}{_PARTITION}{partitions}.{number}" for number in range(partitions))


def members_queue(queue: str, partitions: int) -> str:
    """Return the name of the queue whose consumers are the workers that share the partitions of an ordered queue."""
    return f"{queue}{_PARTITION}{partitions}.members"


def owning_queue(name: str) -> str:
    """Return the handler's queue to which a partition, or a ledger, belongs. Any other name is returned as it is."""
    return _OF_ORDERED.sub("", name)


def ordered_queue(
    name: str, *, exchange: str, keys: tuple[str, ...], partitions: int = 1, arguments: Mapping[str, Any] = _NONE
) -> Topology:
    """Return the queue of an ordered handler, its ledger, its dead-letter queue and its bindings; with more than one of
    `partitions` also a queue and a ledger of each, and the queue of their members. `arguments` are further ones of the
    queues of events.

    Each change of the owner counts as a delivery of all that it had in hand. The delivery limit is out of the way, or
    it would take the first event of a key out from behind the owner's back; the claims count crashes.
    """
    plain = work_queue(name, kind="quorum", exchange=exchange, keys=keys, arguments=arguments)
    dead, work = plain.queues
    single = {"x-single-active-consumer": True, "x-delivery-limit": NO_LIMIT}
    names = tuple(dict.fromkeys((name, *partition_queues(name, partitions))))
    events = tuple(Queue(each, {**work.arguments, **single}) for each in names)
    ledgers = tuple(Queue(ledger_queue(each), {"x-queue-type": "quorum", **single}) for each in names)
    members = () if partitions == 1 else (resting_queue(members_queue(name, partitions)),)
    return Topology(queues=(dead, *events, *ledgers, *members), bindings=plain.bindings)


def resting_queue(name: str) -> Queue:
    """Return a queue in which messages rest until somebody decides, however often they are looked at."""
    return Queue(name, {"x-queue-type": "quorum", "x-delivery-limit": NO_LIMIT})


REGISTRY = "holdfast.queues"


def registry() -> Topology:
    """Return the queue to which each worker that starts reports the names of its queues.

    AMQP cannot list queues, and the dead-letter tools need their names. It is bounded; readers remove duplicates.
    """
    arguments = {**resting_queue(REGISTRY).arguments, "x-max-length": 10_000, "x-overflow": "drop-head"}
    return Topology(queues=(Queue(REGISTRY, arguments),))


DifferenceKind = Literal["missing", "differs", "unbound", "surplus", "unread"]


@dataclass(frozen=True, slots=True)
class Difference:
    """An exchange, queue or binding that is missing, has other arguments, is bound too little or too much, or may not
    be inspected; with a message that says so."""

    kind: DifferenceKind
    object: str
    message: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """A broker's product and version, and how it differs from a topology (bindings aside: AMQP does not list them).
    `unrouted` messages left the delay ladder, and no queue took them."""

    product: str
    version: str
    differences: tuple[Difference, ...] = ()
    unrouted: int = 0


def binding_differences(
    topology: Topology, bindings: Iterable[Mapping[str, Any]], missing: Set[str] = frozenset()
) -> list[Difference]:
    """Compare bindings: those that are missing, and those of our queues that are surplus.

    Bindings that lead to or from a `missing` exchange or queue are left out: that has to be declared first."""
    there = {_binding(row) for row in bindings if row.get("source")}
    ours = set(topology.bindings)
    queues = {queue.name for queue in topology.queues if not queue.existing}
    sources = {binding.source for binding in ours}
    absent = [b for b in topology.bindings if b not in there and not _ends(b) & missing]
    surplus = [b for b in there - ours if b.destination in queues and not b.to_exchange and b.source in sources]
    return [
        *(Difference("unbound", described(b), f"{described(b)} is missing") for b in absent),
        *(Difference("surplus", described(b), f"{described(b)} is not ours") for b in sorted(surplus, key=described)),
    ]


def described(binding: Binding) -> str:
    """Return a binding in words."""
    kind = "exchange" if binding.to_exchange else "queue"
    taken = ", ".join(f"{name}: {value}" for name, value in binding.headers) or binding.key
    return f"binding of {kind} {binding.destination} to {binding.source} for {taken}"


def _ends(binding: Binding) -> set[str]:
    return {f"exchange {binding.source}", f"{'exchange' if binding.to_exchange else 'queue'} {binding.destination}"}


def _binding(row: Mapping[str, Any]) -> Binding:
    to_exchange = row.get("destination_type") == "exchange"
    headers = tuple((name, str(value)) for name, value in sorted((row.get("arguments") or {}).items()))
    return Binding(str(row["source"]), str(row["destination"]), str(row["routing_key"]), to_exchange, headers)


@lru_cache(maxsize=4096)
def matches(pattern: str, key: str) -> bool:
    """Return whether a routing key matches a binding key."""
    return _match(pattern.split(".") if pattern else [], key.split(".") if key else [])


def _match(pattern: list[str], words: list[str]) -> bool:
    if not pattern:
        return not words
    head, rest = pattern[0], pattern[1:]
    if head == "#":
        return any(_match(rest, words[n:]) for n in range(len(words) + 1))
    return bool(words) and head in ("*", words[0]) and _match(rest, words[1:])
