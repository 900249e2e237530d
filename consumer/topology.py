"""What a worker needs on the broker, computed from its handlers."""

from collections.abc import Iterable

from ..broker import Topology, events_exchange, ladder, registry, work_queue
from ..config import BrokerSettings
from .handler import HandlerSpec


def topology_of(handlers: Iterable[HandlerSpec], settings: BrokerSettings) -> Topology:
    """The events exchange, the delay ladder, and for each handler its queue, dead-letter queue and bindings."""
    topology = events_exchange(settings.exchange) + ladder.ladder(settings.max_delay) + registry()
    for handler in handlers:
        topology += work_queue(handler.queue, kind=settings.queue_type, exchange=settings.exchange, keys=handler.events)
        topology += ladder.arrivals(handler.queue, handler.events)
    return topology
