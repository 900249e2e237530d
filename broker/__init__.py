"""The broker: sessions, topology, delay ladder and the in-memory broker (floor 2)."""

from . import ladder
from .open import open_broker
from .port import Broker, Consumer, Delivery, Mode, OnDelivery
from .size import header_size, headers_size
from .topic import matches
from .topology import (
    DELIVERY_LIMIT,
    Binding,
    Exchange,
    Queue,
    Topology,
    dead_letter_queue,
    events_exchange,
    work_queue,
)

__all__ = [
    "DELIVERY_LIMIT",
    "Binding",
    "Broker",
    "Consumer",
    "Delivery",
    "Exchange",
    "Mode",
    "OnDelivery",
    "Queue",
    "Topology",
    "dead_letter_queue",
    "header_size",
    "events_exchange",
    "headers_size",
    "ladder",
    "matches",
    "open_broker",
    "work_queue",
]
