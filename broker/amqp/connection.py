"""aio-pika's connection on a socket of ours, and its channels.

A read passes the splitter, which takes deliveries and confirms; aiormq, which carries aio-pika, sees all other frames.
Whole frames may be written to the socket next to aiormq's.
"""

import asyncio
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from ssl import SSLContext
from typing import Any

import aio_pika
from aiormq import AMQPConnectionError, TransportFactory
from aiormq.abc import AbstractChannel, AbstractConnection, ExceptionType
from aiormq.exceptions import ChannelInvalidStateError
from yarl import URL

from ...config import BrokerSettings
from ...events import ConfigurationError
from ...telemetry import keep_from_forks, mark_heard
from ..open import tls_context
from .errors import CONNECTION_ERRORS
from .lifetime import lost_as_error, while_open
from .splitter import FRAME_MAX, Splitter

CHANNELS = 65_535
"""As many channels as there are numbers, for a broker that sets no limit."""

RPC = 10.0
"""Seconds that an answer to a method may take."""

FULL = 65_536
"""Bytes that wait to be written: with more, wait for `drained`."""

LARGEST_PREFETCH = 65_535
"""Messages that a consumer can have in hand. A quorum queue takes a prefetch of 0, which sets no limit elsewhere, for
2,000: of a longer queue such a consumer never sees the rest."""

_AT_ONCE = 8_192  # bytes: uvloop keeps up to so many until the end of the loop's turn
_NO_LIMIT = 0xFFFF_FFFF
_SIGN_OF_LIFE = 1.0  # seconds: aiormq takes a peer for dead of which it sees no frame

_CLOSING: set[asyncio.Future[None]] = set()  # closes in flight, with somebody waiting or not


class Wire(TransportFactory):
    """The transport of one connection, TCP or TLS, whose frames pass `splitter`."""

    splitter: Splitter
    transport: asyncio.WriteTransport

    def __init__(self) -> None:
        self._writer: asyncio.StreamWriter | None = None

    async def create(self, url: URL, **options: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """See `aiormq.TransportFactory`."""
        provider = options.pop("ssl_context_provider", None)
        context = await provider.get_context() if url.scheme == "amqps" else None
        loop = asyncio.get_running_loop()
        reader = _SplittingReader(loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        try:
            transport, _ = await loop.create_connection(
                lambda: protocol, url.host or "", url.port or 0, ssl=context, **options
            )
        except OSError as error:
            raise AMQPConnectionError(*error.args) from error
        transport.set_write_buffer_limits(high=_AT_ONCE)
        keep_from_forks(transport.get_extra_info("socket").fileno())
        self.splitter, self.transport = reader.splitter, transport
        self._writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        return reader, self._writer

    async def drained(self) -> None:
        """Return when most of what waits was written. Raises `OSError` if the socket is lost."""
        if self._writer is not None:
            await self._writer.drain()

    def abort(self) -> None:
        """Drop the socket, and what waits to be written to it."""
        if self._writer is not None:
            self._writer.transport.abort()


class _SplittingReader(asyncio.StreamReader):
    """A reader that sees everything but the frames that were taken."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self.splitter = Splitter(super().feed_data, _SIGN_OF_LIFE)
        self.feed_data = self.splitter.feed  # type: ignore[method-assign, assignment] # one call fewer for each read

    def feed_eof(self) -> None:
        self.splitter.end()
        super().feed_eof()


class WiredChannel(aio_pika.Channel):
    """aio-pika's channel, opened with a time-out and without the callback that aio-pika leaves on its connection for
    each channel (3 KB that stay until the connection ends, also for each queue that is asked for and missing)."""

    def __init__(self, connection: "WiredConnection", number: int, *, confirms: bool) -> None:
        super().__init__(connection, number, publisher_confirms=confirms, on_return_raises=confirms)
        self.wire = connection.wire
        self._connection_below = connection.below
        self.below: AbstractChannel

    async def initialize(self, timeout: float | None = None) -> None:
        """Open the channel within `timeout` seconds."""
        options = {"publisher_confirms": self.publisher_confirms, "on_return_raises": self.on_return_raises}
        self.below = await self._connection_below.channel(self.number, timeout=timeout, **options)

    async def get_underlay_channel(self) -> AbstractChannel:
        """Return aiormq's channel."""
        if not self.is_initialized:
            raise ChannelInvalidStateError("the channel was not opened")
        return self.below

    @property
    def is_initialized(self) -> bool:
        return hasattr(self, "below")

    @property
    def is_closed(self) -> bool:
        return not self.is_initialized or self.below.is_closed

    @property
    def closing(self) -> "asyncio.Future[None]":
        """A future that is done with the error that closed the channel."""
        return self.below.closing

    async def close(self, exc: ExceptionType | None = None) -> None:
        """Close the channel. Calls that wait on it end with `ConnectionError`."""
        if self.is_initialized:
            await self.below.close(exc or ConnectionError("the channel was closed"))


class WiredConnection(aio_pika.Connection):
    """aio-pika's connection on a wire of ours."""

    def __init__(self, url: URL, *, context: SSLContext | None = None) -> None:
        super().__init__(url, ssl_context=context)
        self.wire = Wire()
        self.kwargs["transport_factory"] = self.wire  # for aiormq: aio-pika hands these arguments on
        self.below: AbstractConnection
        self.channel_max = CHANNELS
        """How many channels may be open at once."""
        self._numbers: Iterator[int]
        self._opening: set[int] = set()

    async def connect(self, timeout: float | None = None) -> None:
        """Connect within `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                await super().connect()
        except BaseException:
            self.wire.abort()  # aio-pika may not know yet of a connection that has just opened
            raise
        if self.transport is None:
            raise ConnectionError("aio-pika opened no connection")
        self.below = self.transport.connection
        self.wire.splitter.largest = self.below.connection_tune.frame_max or _NO_LIMIT
        self.channel_max = self.below.connection_tune.channel_max or CHANNELS
        self._numbers = cycle(range(1, self.channel_max + 1))

    @property
    def is_closed(self) -> bool:
        """Whether the connection was closed or lost, of which aio-pika's own takes no notice."""
        return super().is_closed or (self.transport is not None and self.below.is_closed)

    @property
    def closing(self) -> "asyncio.Future[None]":
        """A future that is done with the error that closed the connection."""
        return self.below.closing

    @property
    def frame_max(self) -> int:
        """Bytes of the largest frame that the broker takes."""
        return self.below.connection_tune.frame_max or FRAME_MAX

    @property
    def server(self) -> tuple[str, str]:
        """Product and version of the broker."""
        properties: dict[str, object] = dict(self.below.server_properties or {})
        return str(properties.get("product", "?")), str(properties.get("version", "?"))

    async def open_channel(self, *, confirms: bool = False, timeout: float = RPC) -> WiredChannel:
        """Open a channel; one with `confirms` is to publish on. Raises `ConnectionError` if all are in use."""
        number = self._free_number()
        self._opening.add(number)
        try:
            channel = WiredChannel(self, number, confirms=confirms)
            await while_open(self, channel.initialize(timeout))
        finally:
            self._opening.discard(number)
        return channel

    def _free_number(self) -> int:
        """Return a number that was not in use for long. aiormq gives out that of a channel the broker has just closed;
        but where ten frames wait to be written it has not answered that closing, and RabbitMQ then ends the connection
        (`second 'channel.open' seen`)."""
        for number in islice(self._numbers, self.channel_max):
            if number not in self.below.channels and number not in self._opening:
                return number
        raise ConnectionError(
            f"all {self.channel_max} channels of this connection are in use: raise channel_max of RabbitMQ above "
            "the number of queues, or run fewer handlers in one process (--only)"
        )


def addresses_now(settings: BrokerSettings, purpose: str) -> tuple[list[URL], SSLContext | None]:
    """Return a URL for each host, and the TLS context, for a new connection; `purpose` is in its name.

    Files with passwords and certificates are read again for each. Raises `ConnectionError` naming one that is wrong.
    """
    try:
        settings = settings.current()
        context = tls_context(settings)
    except ConfigurationError as error:
        raise ConnectionError(str(error)) from None
    name, heartbeat = f"holdfast {purpose}", settings.heartbeat
    return [URL(url).update_query(name=name, heartbeat=heartbeat) for url in settings.urls], context


async def connect_to_one(urls: Sequence[URL], timeout: float, tls: SSLContext | None) -> WiredConnection:
    """Return a connection to the first host that answers. Raises the error of the last host."""
    for number, url in enumerate(urls, 1):
        connection = WiredConnection(url, context=tls)
        try:
            with lost_as_error():
                await connection.connect(timeout)
            break
        except BaseException as error:
            await close_quietly(connection, 1)
            if number == len(urls) or not isinstance(error, CONNECTION_ERRORS):
                raise
    return connection


def shown(url: URL) -> str:
    """Return a URL without its user, its password and its query."""
    return str(url.with_user(None).with_query(None))


async def close_quietly(closable: WiredConnection | WiredChannel, timeout: float) -> None:
    """Close what may be lost already, within `timeout` seconds.

    A close that takes longer is not cancelled. For a channel aiormq would ask a second time, which ends the connection
    once the broker has answered the first; for a connection it would wait until the peer has read all that was written,
    which one that is blocked does not: its socket is dropped, as it is where whoever closes it is cancelled.
    """
    closing = asyncio.ensure_future(closable.close())
    _CLOSING.add(closing)
    closing.add_done_callback(_CLOSING.discard)
    closing.add_done_callback(mark_heard)  # it is closed, one way or the other
    try:
        await asyncio.wait({closing}, timeout=timeout)
    finally:
        if isinstance(closable, WiredConnection) and not closing.done():
            closable.wire.abort()
            await asyncio.wait({closing}, timeout=timeout)


async def untapped(message: aio_pika.abc.AbstractIncomingMessage) -> None:
    """Take no delivery: those of a tapped channel never come to aio-pika."""
