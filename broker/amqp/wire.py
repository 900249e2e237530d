"""The socket under a connection: what it reads passes the splitter, and whole frames may be written beside aiormq's."""

import asyncio
from ssl import SSLContext
from typing import Any

from aiormq import AMQPConnectionError, Connection, TransportFactory
from pamqp.common import FieldTable
from yarl import URL

from .splitter import HEARTBEAT, Splitter, Tap

_ENOUGH = 65_536
_AT_ONCE = 8_192  # bytes: uvloop keeps up to so many until the end of the loop's turn
_NO_LIMIT = 0xFFFF_FFFF
_SIGN_OF_LIFE = 1.0  # seconds: aiormq takes a peer for dead of which it sees no frame


class Wire(TransportFactory):
    """The transport of one connection (TCP or TLS), with its channels tapped on request."""

    def __init__(self) -> None:
        self._reader: _SplittingReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    def tap(self, channel: int, tap: Tap) -> None:
        """Let `tap` take frames of a channel before aiormq sees them."""
        assert self._reader is not None
        self._reader.splitter.tap(channel, tap)

    def untap(self, channel: int) -> None:
        if self._reader is not None:
            self._reader.splitter.untap(channel)

    def agree(self, frame_max: int) -> None:
        """No frame is larger than this (0: than its length can say)."""
        assert self._reader is not None
        self._reader.splitter.largest = frame_max or _NO_LIMIT

    def write(self, frames: bytes) -> bool:
        """Write whole frames. False where the socket is lost."""
        if self._writer is None or self._writer.is_closing():
            return False
        self._writer.write(frames)
        return True

    @property
    def is_full(self) -> bool:
        """Whether so much waits to be written that more should wait for `drained`."""
        return self._writer is not None and self._writer.transport.get_write_buffer_size() > _ENOUGH

    async def drained(self) -> None:
        """Return when what was written has mostly gone. Raises `OSError` where the socket is lost."""
        if self._writer is not None:
            await self._writer.drain()

    def abort(self) -> None:
        """Drop the socket, and what waits to be written to it."""
        if self._writer is not None:
            self._writer.transport.abort()

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
        self._reader, self._writer = reader, asyncio.StreamWriter(transport, protocol, reader, loop)
        return self._reader, self._writer


class TappedConnection(Connection):
    """aiormq's connection on a wire of ours."""

    def __init__(self, url: URL, *, context: SSLContext | None = None) -> None:
        self.wire = Wire()
        super().__init__(url, context=context, transport_factory=self.wire)

    async def connect(self, client_properties: FieldTable | None = None) -> bool:
        is_new: bool = await super().connect(client_properties)
        self.wire.agree(self.connection_tune.frame_max)
        return is_new


class _SplittingReader(asyncio.StreamReader):
    """What aiormq reads from: it sees everything but the deliveries that were taken."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self.splitter = Splitter(self._pass_on)
        self._clock = loop.time
        self._passed_at = loop.time()

    def feed_data(self, data: bytes) -> None:  # type: ignore[override]
        taken = self.splitter.taken
        self.splitter.feed(data)
        if self.splitter.taken > taken and self._clock() - self._passed_at > _SIGN_OF_LIFE:
            self._pass_on(HEARTBEAT)

    def feed_eof(self) -> None:
        self.splitter.end()
        super().feed_eof()

    def _pass_on(self, data: bytes) -> None:
        self._passed_at = self._clock()
        super().feed_data(data)
