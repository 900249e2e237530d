"""Each broker there is, ready to be used the same way by the contract suite."""

import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Protocol

import aiormq
from aiormq.abc import AbstractConnection
from proxy import Proxy, proxy_to
from waiting import Arrivals

from holdfast.broker import Broker, Consumer, Delivery, Queue, Topology, open_broker
from holdfast.broker.memory import MemoryBroker
from holdfast.config import Settings
from holdfast.events import Message
from holdfast.telemetry import Fact

MAX_BODY = 134_217_728
"""The largest body RabbitMQ takes, in bytes: its default up to 3.13 (from 4.0 on it is 16 MiB)."""


class Server(Protocol):
    """Where brokers are: a server, and what only a test does to it."""

    url: str

    def lose_connection(self, broker: Broker) -> None:
        """Break every connection of the broker."""
        ...

    async def depth(self, queue: str) -> int:
        """How many messages are ready in the queue."""
        ...

    async def delete_queue(self, queue: str) -> None: ...

    async def delete_exchange(self, exchange: str) -> None: ...


class InMemory:
    def __init__(self) -> None:
        self.url = f"memory://{uuid.uuid4().hex}"
        self._inside = MemoryBroker(self.url)

    def lose_connection(self, broker: Broker) -> None:
        assert isinstance(broker, MemoryBroker)
        broker.lose_connection()

    async def depth(self, queue: str) -> int:
        found = await self._inside.count(queue)
        assert found is not None
        return found.ready

    async def delete_queue(self, queue: str) -> None:
        self._inside.delete_queue(queue)

    async def delete_exchange(self, exchange: str) -> None:
        """The server goes as a whole."""

    async def close(self) -> None:
        await self._inside.close()


class RabbitMQ:
    """A real one. The brokers under test reach it through a proxy, the test itself does not."""

    def __init__(self, proxy: Proxy, url: str, connection: AbstractConnection) -> None:
        self.url = proxy.url(url)
        self._proxy = proxy
        self._connection = connection

    def lose_connection(self, broker: Broker) -> None:
        self._proxy.cut()

    async def depth(self, queue: str) -> int:
        channel = await self._connection.channel()
        try:
            return (await channel.queue_declare(queue, passive=True)).message_count or 0
        finally:
            await channel.close()

    async def delete_queue(self, queue: str) -> None:
        channel = await self._connection.channel()
        await channel.queue_delete(queue)
        await channel.close()

    async def delete_exchange(self, exchange: str) -> None:
        channel = await self._connection.channel()
        await channel.exchange_delete(exchange)
        await channel.close()


class Bench:
    """A broker, the server it is on, and the few things that nearly every test does."""

    def __init__(self, server: Server, stack: AsyncExitStack) -> None:
        self.server = server
        self.facts: Arrivals[Fact] = Arrivals()
        self._stack = stack
        self._run = uuid.uuid4().hex[:10]
        self._declared = Topology()
        self.broker: Broker

    async def open(self) -> Broker:
        """Another broker on the same server, closed after the test."""
        settings = Settings(_env_file=None, broker={"url": self.server.url})
        broker = await open_broker(settings, self.facts)
        self._stack.push_async_callback(broker.close)
        return broker

    def name(self, word: str) -> str:
        """A name that no other test uses."""
        return f"contract.{self._run}.{word}"

    async def declare(self, topology: Topology) -> None:
        """Declare it, and delete it after the test, but for what all services share."""
        self._declared += topology
        await self.broker.declare(topology)

    async def queue(self, word: str, kind: str = "classic", **arguments: Any) -> str:
        """A new queue. Arguments in Python's spelling: `x_message_ttl=100`."""
        name = self.name(word)
        given = {key.replace("_", "-"): value for key, value in arguments.items()}
        await self.declare(Topology(queues=(Queue(name, {"x-queue-type": kind, **given}),)))
        return name

    async def publish(self, *bodies: bytes, to: str) -> None:
        """Publish straight to a queue, one after the other."""
        for body in bodies:
            await self.broker.publish(a_message(body, routing_key=to), timeout=10)

    async def consume(
        self, queue: str, *, prefetch: int = 10, by: Broker | None = None
    ) -> tuple[Consumer, Arrivals[Delivery]]:
        inbox: Arrivals[Delivery] = Arrivals()
        return await (by or self.broker).consume(queue, prefetch=prefetch, on_delivery=inbox), inbox

    async def clean_up(self) -> None:
        for queue in self._declared.queues:
            if not queue.name.startswith("holdfast."):
                await self.server.delete_queue(queue.name)
        for exchange in self._declared.exchanges:
            if not exchange.name.startswith("holdfast."):
                await self.server.delete_exchange(exchange.name)


def a_message(body: bytes = b"{}", **fields: Any) -> Message:
    return Message(body, **{"message_id": uuid.uuid4().hex, **fields})


@asynccontextmanager
async def in_memory() -> AsyncIterator[Server]:
    server = InMemory()
    yield server
    await server.close()


@asynccontextmanager
async def on_rabbitmq(url: str) -> AsyncIterator[Server]:
    connection = await aiormq.connect(url)
    try:
        async with proxy_to(url) as proxy:
            yield RabbitMQ(proxy, url, connection)
    finally:
        await connection.close()
