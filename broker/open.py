"""From a URL to a broker."""

from ..config import Settings
from ..telemetry import Emit, TlsUnverified
from .memory import MemoryBroker
from .port import Broker
from .tls import tls_context


async def open_broker(settings: Settings, emit: Emit) -> Broker:
    """Return the broker that the settings name. It connects when it is first used."""
    broker = settings.broker
    url = broker.url.get_secret_value()
    if url.startswith("memory:"):
        return MemoryBroker(url, emit=emit)
    from .amqp import AmqpBroker

    if url.startswith("amqps:") and not broker.verify:
        emit(TlsUnverified("HOLDFAST_BROKER__VERIFY"))
    return AmqpBroker(
        url,
        tls=tls_context(broker),
        heartbeat=broker.heartbeat,
        connect_timeout=broker.connect_timeout,
        emit=emit,
    )
