"""RabbitMQ over aiormq: the only folder that knows the AMQP libraries."""

from . import lenient
from .looking import apply_topology, look
from .session import AmqpBroker
from .tls import tls_context

lenient.install()

__all__ = ["AmqpBroker", "apply_topology", "look", "tls_context"]
