"""RabbitMQ and Redis for tests and for the demo: the first of these that serves.

1. A server that was named: `HOLDFAST_TEST_RABBITMQ_URL`, `HOLDFAST_TEST_REDIS_URL`.
2. A container, when Docker answers and `testcontainers` is installed.
3. A private node of the programs on this machine: free ports, a folder of its own, stopped afterwards.
4. The same, after `apt-get install`, with root on Debian or Ubuntu.

Where none serves, `ServersUnavailable` says in one line what to install.
"""

from .choose import (
    RABBITMQ_URL,
    REDIS_URL,
    Machine,
    Way,
    rabbitmq_node,
    rabbitmq_server,
    redis_node,
    redis_server,
    this_machine,
    ways,
)
from .node import Given, Node, Server, ServersUnavailable
from .process import free_port
from .rabbitmq import PrivateRabbitMQ, RabbitMQPrograms, find_rabbitmq, private_rabbitmq
from .redis import PrivateRedis, find_redis, private_redis

__all__ = [
    "RABBITMQ_URL",
    "REDIS_URL",
    "Given",
    "Machine",
    "Node",
    "PrivateRabbitMQ",
    "PrivateRedis",
    "RabbitMQPrograms",
    "Server",
    "ServersUnavailable",
    "Way",
    "find_rabbitmq",
    "find_redis",
    "free_port",
    "private_rabbitmq",
    "private_redis",
    "rabbitmq_node",
    "rabbitmq_server",
    "redis_node",
    "redis_server",
    "this_machine",
    "ways",
]
