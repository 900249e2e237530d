"""The in-memory broker: what the pipeline relies on of RabbitMQ, in this process and on its loop's clock."""

from .server import Server, host, shared
from .session import MemoryBroker

__all__ = ["MemoryBroker", "Server", "host", "shared"]
