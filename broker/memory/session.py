"""`MemoryBroker`: a session with a server in this process, and the faults that the harness makes."""

import asyncio
from contextlib import suppress

from ...events import BrokerUnavailable, Message, NotConnected, TooLarge, TopologyError
from ...telemetry import Connected, Detached, Disconnected, Emit, Role
from ..codec import HEADER_BUDGET, address, pack, unpack
from ..port import Attachment, Consumer, Depth, Mode, Offset, OnDelivery, OnHeld, OnLost, OnTaken
from ..topology import Topology
from .attachment import MemoryAttachment
from .browser import MemoryBrowser
from .consumer import MemoryConsumer
from .queue import Taker
from .server import REDECLARE_AFTER, Server, shared

MAX_BODY = 134_217_728
ROLES: tuple[Role, ...] = ("consume", "publish")


class MemoryBroker:
    """RabbitMQ's semantics without RabbitMQ. See `broker.port.Broker`.

    Brokers of one URL, in one process and on one loop, share queues and messages until the last of them
    closes; `MemoryBroker(None)` shares with nobody. All waiting is the running loop's: where its clock is
    virtual, hours pass at once. `max_body` is in bytes; by default it is RabbitMQ's, 128 MiB.
    """

    header_budget = HEADER_BUDGET

    def __init__(
        self, url: str | None = "memory://", *, emit: Emit = lambda fact: None, max_body: int = MAX_BODY
    ) -> None:
        self._url = url
        self._emit = emit
        self._max_body = max_body
        self._server: Server | None = None
        self._consumers: list[MemoryConsumer] = []
        self._browsers: list[MemoryBrowser] = []
        self._attachments: list[MemoryAttachment] = []
        self._declared = Topology()
        self._redeclaring: asyncio.TimerHandle | None = None
        self._connected = self._closed = False
        with suppress(RuntimeError):  # made before the loop runs, it joins when it is first used
            self._join()

    async def declare(self, topology: Topology, mode: Mode = "declare") -> None:
        server = self._connect()
        match mode:
            case "declare":
                server.declare(topology)
                self._declared += topology
            case "verify":
                server.verify(topology)
            case "skip":
                pass

    async def publish(self, message: Message, *, timeout: float | None) -> None:
        if self._closed:
            raise NotConnected(f"not sent to {address(message)}: this broker was closed")
        carried = _carried(message, self._max_body)
        self._connect().publish(carried)
        await asyncio.sleep(0)  # so that a loop that publishes does not starve consumers

    async def consume(self, queue: str, *, prefetch: int, on_delivery: OnDelivery) -> Consumer:
        self._connect()
        consumer = MemoryConsumer(
            queue, prefetch, on_delivery, emit=self._emit, reattach=lambda: self._attach(consumer)
        )
        self._consumers.append(consumer)
        self._attach(consumer)
        return consumer

    async def attach(
        self, queue: str, *, prefetch: int, on_taken: OnTaken, on_lost: OnLost, offset: Offset | None = None
    ) -> Attachment:
        attachment = MemoryAttachment(prefetch, on_taken, on_lost, offset)
        self._connect().attach_once(queue, attachment)
        self._attachments = [one for one in self._attachments if one.is_open] + [attachment]
        return attachment

    async def count(self, queue: str) -> Depth | None:
        known = self._connect().queues.get(queue)
        return None if known is None else Depth(len(known.ready), len(known.takers))

    async def browse(self, queue: str, on_held: OnHeld) -> MemoryBrowser:
        browser = self._connect().browse(queue, on_held)
        self._browsers.append(browser)
        return browser

    async def close(self) -> None:
        for browser in self._browsers:
            await browser.close()
        for attachment in self._attachments:
            attachment.detach("closed", 0.0)
        for consumer in self._consumers:
            await consumer.stop(close=True)
        self._consumers.clear()
        if self._redeclaring is not None:
            self._redeclaring.cancel()
        server, self._server, self._closed = self._server, None, True
        if server is not None:
            server.leave(self._on_queue_deleted)

    def delete_queue(self, name: str) -> None:
        """A fault: the queue goes, with its messages and bindings.

        Its consumers are detached until it is declared again. A session that declared it (mode `declare`)
        declares its topology again after `REDECLARE_AFTER` seconds.
        """
        self._join().delete_queue(name)

    def lose_connection(self) -> None:
        """A fault: this session's connections break.

        What its consumers had not settled goes back to the queues, flagged as redelivered, and their earlier
        deliveries are stale. With the next turn of the loop the session is connected and consumes again.
        """
        for role in ROLES:
            self._emit(Disconnected(role, self._url or "memory://", "connection lost", 0.0))
        takers: list[Taker] = [*self._consumers, *self._browsers, *self._attachments]
        for taker in takers:
            taker.detach("connection lost", 0.0)
        self._connected = False
        asyncio.get_running_loop().call_soon(self._reconnect)

    def _join(self) -> Server:
        if self._server is None:
            if self._closed:
                raise BrokerUnavailable("this broker was closed")
            asyncio.get_running_loop()
            self._server = Server() if self._url is None else shared(self._url)
            self._server.join(self._on_queue_deleted)
        return self._server

    def _connect(self) -> Server:
        server = self._join()
        if not self._connected:
            self._connected = True
            for role in ROLES:
                self._emit(Connected(role, server.url, "memory"))
        return server

    def _reconnect(self) -> None:
        if self._closed:
            return
        self._connect()
        for consumer in self._consumers:
            self._attach(consumer)

    def _attach(self, consumer: MemoryConsumer) -> None:
        if not self._join().attach(consumer.queue_name, consumer):
            self._emit(Detached(consumer.queue_name, f"no queue '{consumer.queue_name}'", REDECLARE_AFTER))
            self._on_queue_deleted(consumer.queue_name)

    def _on_queue_deleted(self, name: str) -> None:
        if self._redeclaring is None and any(queue.name == name for queue in self._declared.queues):
            self._redeclaring = asyncio.get_running_loop().call_later(REDECLARE_AFTER, self._redeclare)

    def _redeclare(self) -> None:
        self._redeclaring = None
        with suppress(TopologyError):  # drift is reported to those it hurts
            self._join().declare(self._declared)


def _carried(message: Message, max_body: int) -> Message:
    """Return the message as a consumer will see it, so that nothing works here that fails on RabbitMQ.

    Raises `TooLarge`, and `PublishError` naming a value without an AMQP form. The body is shared, never copied."""
    if len(message.body) > max_body:
        raise TooLarge(f"the body for {address(message)} has {len(message.body)} bytes; at most {max_body} go")
    packed = pack(message)
    return unpack(message.exchange.encode(), message.routing_key.encode(), packed.header, message.body)
