"""The in-memory broker: what the pipeline relies on of RabbitMQ, in this process and on its loop's clock."""

from .queue import MemoryQueue as MemoryQueue
from .server import Server as Server
from .server import host as host
from .server import shared as shared
from .session import MemoryBroker as MemoryBroker
