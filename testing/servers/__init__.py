"""RabbitMQ, Redis and PostgreSQL for tests and for the demo: the first of these that serves.

1. A server that was named: `HOLDFAST_TEST_RABBITMQ_URL`, `HOLDFAST_TEST_REDIS_URL`, `HOLDFAST_TEST_POSTGRES_URL`.
2. A container, when Docker answers and `testcontainers` is installed.
3. A private node of the programs on this machine: free ports, a folder of its own, stopped afterwards.
4. The same, after `apt-get install`, with root on Debian or Ubuntu.

Where none serves, `ServersUnavailable` says in one line what to install.
"""

from .choose import POSTGRES_URL as POSTGRES_URL
from .choose import RABBITMQ_URL as RABBITMQ_URL
from .choose import REDIS_URL as REDIS_URL
from .choose import Machine as Machine
from .choose import Way as Way
from .choose import postgres_node as postgres_node
from .choose import postgres_server as postgres_server
from .choose import rabbitmq_node as rabbitmq_node
from .choose import rabbitmq_server as rabbitmq_server
from .choose import redis_node as redis_node
from .choose import redis_server as redis_server
from .choose import this_machine as this_machine
from .choose import ways as ways
from .node import Given as Given
from .node import Node as Node
from .node import Server as Server
from .node import ServersUnavailable as ServersUnavailable
from .postgres import PrivatePostgres as PrivatePostgres
from .postgres import private_postgres as private_postgres
from .process import free_port as free_port
from .rabbitmq import PrivateRabbitMQ as PrivateRabbitMQ
from .rabbitmq import RabbitMQPrograms as RabbitMQPrograms
from .rabbitmq import find_rabbitmq as find_rabbitmq
from .rabbitmq import private_rabbitmq as private_rabbitmq
from .redis import PrivateRedis as PrivateRedis
from .redis import private_redis as private_redis
