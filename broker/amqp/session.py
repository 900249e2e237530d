"""`AmqpBroker`: two supervised connections, one that consumes and one that publishes."""

import asyncio
from contextlib import suppress
from ssl import SSLContext

from aiormq import Channel, Connection
from aiormq.exceptions import AMQPChannelError, ChannelNotFoundEntity
from yarl import URL

from ...events import BrokerUnavailable, Message, TopologyError, Unroutable
from ...telemetry import Emit
from ..port import Consumer, Depth, Mode, OnDelivery, OnHeld
from ..size import header_budget
from ..topology import Topology
from . import declaring
from .browsing import AmqpBrowser, depth_of, open_browser
from .consuming import AmqpConsumer
from .explain import explain
from .link import Link, open_channel
from .losses import CONNECTION_ERRORS, heed_cancellation, lost_as_error
from .publishing import Publishing

_REDECLARE_EVERY = 2.0  # seconds: however much is unroutable, the topology is declared again no more often


class AmqpBroker:
    """RabbitMQ. See `broker.port.Broker`."""

    def __init__(
        self,
        url: str,
        *,
        heartbeat: int = 15,
        connect_timeout: float = 10.0,
        fast: bool = True,
        tls: SSLContext | None = None,
        emit: Emit,
    ) -> None:
        self._emit = emit
        self._url = URL(url).update_query(heartbeat=heartbeat)
        self._connect_timeout = connect_timeout
        self._tls = tls
        self._links = {
            role: Link(
                role,
                url,
                heartbeat=heartbeat,
                connect_timeout=connect_timeout,
                tapped=fast,
                tls=tls,
                emit=emit,
            )
            for role in ("consume", "publish")
        }
        self._links["publish"].on_connect = self._on_connect
        self._publishing = Publishing(self._links["publish"])
        self._consumers: list[AmqpConsumer] = []
        self._asking: list[Channel] = []
        self._declared = Topology()
        self._declared_at = float("-inf")
        self._mending: asyncio.Task[None] | None = None

    @property
    def header_budget(self) -> int:
        return header_budget(self._links["publish"].frame_max)

    async def declare(self, topology: Topology, mode: Mode = "declare") -> None:
        while True:
            try:
                with lost_as_error:
                    await self._match(topology, mode)
                return
            except AMQPChannelError as error:
                raise TopologyError(explain(error)) from None
            except CONNECTION_ERRORS:  # lost while declaring: what is there already may be declared again
                heed_cancellation()
                await asyncio.sleep(0.05)

    async def _match(self, topology: Topology, mode: Mode) -> None:
        connection = await self._links["publish"].connection()
        match mode:
            case "declare":
                await declaring.declare(connection, topology)
                self._declared += topology
            case "verify":
                await declaring.verify(connection, topology)
            case "skip":
                pass

    async def publish(self, message: Message, *, timeout: float | None) -> None:
        try:
            await self._publishing.publish(message, timeout)
        except Unroutable:
            self._redeclare_soon()
            raise

    async def consume(self, queue: str, *, prefetch: int, on_delivery: OnDelivery) -> Consumer:
        consumer = AmqpConsumer(
            self._links["consume"], queue, prefetch, on_delivery, emit=self._emit, redeclare=self._redeclare
        )
        self._consumers = [before for before in self._consumers if not before.ended] + [consumer]
        return consumer

    async def count(self, queue: str) -> Depth | None:
        try:
            with lost_as_error:
                channel = await self._channel_to_ask()
                depth = await depth_of(channel, queue)
        except ChannelNotFoundEntity:
            return None
        except CONNECTION_ERRORS as error:
            heed_cancellation()
            raise BrokerUnavailable(f"cannot ask {self._links['publish']} about {queue}: {explain(error)}") from None
        self._asking.append(channel)  # not where the asking ended otherwise: its answer may come yet
        return depth

    async def _channel_to_ask(self) -> Channel:
        """One that nobody asks on now. What the broker refuses, and a loss of the connection, closes them."""
        while self._asking:
            if not (channel := self._asking.pop()).is_closed:
                return channel
        async with asyncio.timeout(self._connect_timeout):
            return await open_channel(await self._links["publish"].connection(), confirms=False)

    async def browse(self, queue: str, on_held: OnHeld) -> AmqpBrowser:
        return await open_browser(self._url, queue, on_held, connect_timeout=self._connect_timeout, tls=self._tls)

    async def close(self) -> None:
        for consumer in self._consumers:
            await consumer.stop(close=True)
        if self._mending is not None:
            self._mending.cancel()
            await asyncio.gather(self._mending, return_exceptions=True)
        await self._publishing.close()
        for link in self._links.values():
            await link.close()

    async def _on_connect(self, connection: Connection) -> None:
        """A broker that lost its data, or another one, has none of it. Drift is found by those it hurts."""
        with suppress(TopologyError):
            await declaring.declare(connection, self._declared)

    async def _redeclare(self) -> None:
        await declaring.declare(await self._links["consume"].connection(), self._declared)

    def _redeclare_soon(self) -> None:
        """Something this process declared may be gone. The publisher is told; whoever holds a copy tries again."""
        now = asyncio.get_running_loop().time()
        if self._declared == Topology() or now - self._declared_at < _REDECLARE_EVERY:
            return
        self._declared_at = now
        self._mending = asyncio.create_task(self._mend(), name="holdfast redeclare")

    async def _mend(self) -> None:
        with suppress(TopologyError, *CONNECTION_ERRORS), lost_as_error:
            await declaring.declare(await self._links["publish"].connection(), self._declared)
