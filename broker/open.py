"""From a URL to a broker."""

from ..config import Settings
from ..telemetry import Emit
from .amqp import AmqpBroker
from .memory import MemoryBroker
from .port import Broker


async def open_broker(settings: Settings, emit: Emit) -> Broker:
    """The broker the settings name. It connects when it is first used."""
    broker = settings.broker
    url = broker.url.get_secret_value()
    if url.startswith("memory:"):
        return MemoryBroker(url, emit=emit)
    return AmqpBroker(
        url,
        heartbeat=broker.heartbeat,
        connect_timeout=broker.connect_timeout,
        fast=broker.decoding == "fast",
        emit=emit,
    )
