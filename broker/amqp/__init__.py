"""RabbitMQ over aiormq: the only folder that knows the AMQP libraries."""

from . import lenient
from .session import AmqpBroker
from .tls import tls_context

lenient.install()

__all__ = ["AmqpBroker", "tls_context"]
