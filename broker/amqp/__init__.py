"""RabbitMQ over aio-pika: the only folder that knows the AMQP libraries."""

from .session import AmqpBroker
from .topology import apply_topology, compare_topology

__all__ = ["AmqpBroker", "apply_topology", "compare_topology"]
