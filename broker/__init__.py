"""The broker: sessions, topology, delay ladder and the in-memory broker (floor 2)."""

from . import ladder
from .clock import REAL, Clock, sleep
from .codec import EncodedHeaders, header_size, headers_size
from .countdown import Countdown
from .drift import Comparison, Difference
from .management import Management, ManagementUnavailable
from .open import open_broker
from .pause import Pause
from .port import Broker, Browser, Consumer, Delivery, Depth, Held, OnDelivery
from .topic import matches
from .topology import (
    DEAD_SUFFIX,
    DELIVERY_LIMIT,
    REGISTRY,
    Binding,
    Exchange,
    Queue,
    Topology,
    dead_letter_queue,
    events_exchange,
    registry,
    resting_queue,
    work_queue,
)

__all__ = [
    "Comparison",
    "EncodedHeaders",
    "Difference",
    "ManagementUnavailable",
    "Management",
    "DEAD_SUFFIX",
    "DELIVERY_LIMIT",
    "REAL",
    "sleep",
    "REGISTRY",
    "Binding",
    "Broker",
    "Browser",
    "Clock",
    "Consumer",
    "Countdown",
    "Delivery",
    "Depth",
    "Exchange",
    "Held",
    "OnDelivery",
    "Pause",
    "Queue",
    "Topology",
    "dead_letter_queue",
    "header_size",
    "headers_size",
    "events_exchange",
    "ladder",
    "matches",
    "open_broker",
    "registry",
    "resting_queue",
    "work_queue",
]
