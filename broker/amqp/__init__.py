"""RabbitMQ over aio-pika: the only folder that knows the AMQP libraries."""

from .session import AmqpBroker as AmqpBroker
from .topology import apply_topology as apply_topology
from .topology import compare_topology as compare_topology
from .topology import verify_bindings as verify_bindings
