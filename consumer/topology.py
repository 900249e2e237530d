"""What a worker needs on the broker, computed from its handlers."""

from collections.abc import Iterable

from ..broker import Binding, Topology, events_exchange, ladder, registry, work_queue
from ..config import BrokerSettings
from .handler import HandlerSpec


def topology_of(handlers: Iterable[HandlerSpec], settings: BrokerSettings) -> Topology:
    """The events exchange, the delay ladder, and for each handler its queue, dead-letter queue and bindings."""
    topology = events_exchange(settings.exchange) + ladder.ladder(settings.max_delay) + registry()
    for handler in handlers:
        targets = (ladder.to_queue(handler.queue), *(ladder.to_listeners(event) for event in handler.events))
        topology += work_queue(handler.queue, kind=settings.queue_type, exchange=settings.exchange, keys=handler.events)
        topology += Topology(bindings=tuple(Binding(ladder.OUT, handler.queue, ladder.arrival(t)) for t in targets))
    return topology
