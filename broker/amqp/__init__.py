"""RabbitMQ over aiormq: the only folder that knows the AMQP libraries."""

from .session import AmqpBroker

__all__ = ["AmqpBroker"]
