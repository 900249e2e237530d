"""RabbitMQ over aiormq: the only folder that knows the AMQP libraries."""

from . import lenient
from .session import AmqpBroker

lenient.install()

__all__ = ["AmqpBroker"]
