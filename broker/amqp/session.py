"""`AmqpBroker`: two supervised connections, one that consumes and one that publishes."""

import asyncio
from contextlib import suppress

from aiormq.exceptions import AMQPChannelError, ChannelNotFoundEntity

from ...config import BrokerSettings
from ...events import BrokerUnavailable, Message, TopologyError, TopologyMissing, Unroutable
from ...telemetry import Emit, TopologyUnverified, cancellations, finish, heed_cancellation, keep_running
from ..management import ManagementUnavailable
from ..port import Attachment, Consumer, Depth, Mode, Offset, OnDelivery, OnHeld, OnLost, OnTaken
from ..topology import Topology
from . import topology as topologies
from .attachment import AmqpAttachment
from .browser import AmqpBrowser, depth_of, open_browser
from .connection import LARGEST_PREFETCH, WiredChannel, WiredConnection, addresses_now
from .consumer import AmqpConsumer
from .errors import CONNECTION_ERRORS, explain
from .lifetime import lost_as_error
from .link import Link, Patience
from .publisher import AmqpPublisher

_REDECLARE_EVERY = 2.0  # seconds: however much is unroutable, the topology is declared again no more often


class AmqpBroker:
    """RabbitMQ. See `broker.port.Broker`."""

    def __init__(self, settings: BrokerSettings, *, emit: Emit) -> None:
        self._emit = emit
        self._settings = settings
        patience = Patience()
        self._consuming, self._publishing = (Link(role, settings, emit, patience) for role in ("consume", "publish"))
        self._publishing.on_connect = self._on_connect
        self._publisher = AmqpPublisher(self._publishing, emit)
        self._consumers: list[AmqpConsumer] = []
        self._idle: list[WiredChannel] = []  # to ask on
        self._declared = Topology()
        self._declared_at = float("-inf")
        self._redeclaring: asyncio.Task[None] | None = None

    @property
    def header_budget(self) -> int:
        return self._publishing.header_budget

    async def declare(self, topology: Topology, mode: Mode = "declare") -> None:
        before = cancellations()
        while True:
            try:
                with lost_as_error():
                    await self._match(topology, mode)
                return
            except AMQPChannelError as error:
                raise TopologyError(explain(error)) from None
            except CONNECTION_ERRORS:  # lost while declaring: what exists already may be declared again
                heed_cancellation(before)
                await asyncio.sleep(0.05)

    async def _match(self, topology: Topology, mode: Mode) -> None:
        connection = await self._publishing.connection()
        match mode:
            case "declare":
                await topologies.declare(connection, topology)
                self._declared += topology
            case "verify":
                await topologies.verify(connection, topology)
                try:
                    await topologies.verify_bindings(self._settings, topology)
                except ManagementUnavailable as error:
                    self._emit(TopologyUnverified(str(error)))
            case "skip":
                pass

    async def publish(self, message: Message, *, timeout: float | None) -> None:
        try:
            await self._publisher.publish(message, timeout)
        except Unroutable:
            self._redeclare_soon()
            raise

    async def consume(self, queue: str, *, prefetch: int, on_delivery: OnDelivery) -> Consumer:
        consumer = AmqpConsumer(
            self._consuming, queue, prefetch, on_delivery, emit=self._emit, redeclare=self._redeclare
        )
        self._consumers = [before for before in self._consumers if not before.ended] + [consumer]
        return consumer

    async def attach(
        self, queue: str, *, prefetch: int, on_taken: OnTaken, on_lost: OnLost, offset: Offset | None = None
    ) -> Attachment:
        link, before = self._consuming, cancellations()
        try:
            with lost_as_error():
                await link.try_out(queue, prefetch or LARGEST_PREFETCH)
                connection = await link.connection()
                channel = await connection.open_channel()
                attachment = AmqpAttachment(channel, prefetch, on_taken, on_lost, link.patience)
                with link.asking(queue):
                    await attachment.open(connection, queue, offset)
        except ChannelNotFoundEntity as error:
            with suppress(TopologyError, *CONNECTION_ERRORS), lost_as_error():
                await self._redeclare()
            raise TopologyMissing(explain(error)) from None
        except CONNECTION_ERRORS as error:
            heed_cancellation(before)
            raise BrokerUnavailable(f"cannot consume {queue}: {explain(error, right='read')}") from None
        return attachment

    async def count(self, queue: str) -> Depth | None:
        before = cancellations()
        try:
            with lost_as_error():
                channel = await self._idle_channel()
                depth = await depth_of(channel, queue)
        except ChannelNotFoundEntity:
            heed_cancellation(before)
            return None
        except CONNECTION_ERRORS as error:
            heed_cancellation(before)
            raise BrokerUnavailable(f"cannot ask {self._publishing} about {queue}: {explain(error)}") from None
        self._idle.append(channel)  # not if the question ended otherwise: its answer may still come
        heed_cancellation(before)
        return depth

    async def _idle_channel(self) -> WiredChannel:
        """Return a channel that nobody asks on now. A refusal of the broker, or a lost connection, closes them."""
        while self._idle:
            if not (channel := self._idle.pop()).is_closed:
                return channel
        async with asyncio.timeout(self._settings.connect_timeout):
            connection = await self._publishing.connection()
            return await connection.open_channel()

    async def browse(self, queue: str, on_held: OnHeld) -> AmqpBrowser:
        limit, turn = self._settings.connect_timeout, self._publishing.turn
        try:
            urls, tls = addresses_now(self._settings, "browse")
        except ConnectionError as error:
            raise BrokerUnavailable(f"cannot read {queue}: {error}") from None
        first = turn % len(urls)
        return await open_browser(urls[first:] + urls[:first], queue, on_held, connect_timeout=limit, tls=tls)

    async def close(self) -> None:
        await finish(self._close())

    async def _close(self) -> None:
        await asyncio.gather(*(consumer.stop(close=True) for consumer in self._consumers))
        if self._redeclaring is not None:
            self._redeclaring.cancel()
            await asyncio.gather(self._redeclaring, return_exceptions=True)
        await self._publisher.close()
        await asyncio.gather(self._consuming.close(), self._publishing.close())

    async def _on_connect(self, connection: WiredConnection) -> None:
        """Declare the topology again: a broker that lost its data, or another one, has none of it. Drift is reported to
        those it hurts."""
        with suppress(TopologyError):
            await topologies.declare(connection, self._declared)

    async def _redeclare(self) -> None:
        await topologies.declare(await self._consuming.connection(), self._declared)

    def _redeclare_soon(self) -> None:
        """Declare the topology again, because some of it may be gone. The caller of the publish gets its error; whoever
        holds a copy tries again."""
        now = asyncio.get_running_loop().time()
        is_declaring = self._redeclaring is not None and not self._redeclaring.done()
        if is_declaring or self._declared == Topology() or now - self._declared_at < _REDECLARE_EVERY:
            return
        self._declared_at = now
        restoring = keep_running("redeclaration", self._restore, self._emit)
        self._redeclaring = asyncio.create_task(restoring, name="holdfast redeclare")

    async def _restore(self) -> None:
        with suppress(TopologyError, BrokerUnavailable, *CONNECTION_ERRORS), lost_as_error():
            await topologies.declare(await self._publishing.connection(), self._declared)
