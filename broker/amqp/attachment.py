"""One channel on one queue, which is not restored: what it has in hand returns with it, at once and in order."""

import asyncio
from contextlib import suppress
from typing import Any

from ...telemetry import cancellations, heed_cancellation
from ..port import STREAM_OFFSET, Offset, OnLost, OnTaken
from .connection import LARGEST_PREFETCH, RPC, WiredChannel, WiredConnection, close_quietly, untapped
from .deliveries import TRAVEL, Deliveries
from .errors import CONNECTION_ERRORS, Cancelled, explain
from .lifetime import lost_as_error, while_open, why_lost
from .link import Patience


class AmqpAttachment:
    """See `broker.port.Attachment`."""

    def __init__(
        self, channel: WiredChannel, prefetch: int, on_taken: OnTaken, on_lost: OnLost, patience: Patience
    ) -> None:
        self._channel = channel
        self._patience = patience
        self._prefetch = prefetch or LARGEST_PREFETCH
        self._on_lost: OnLost | None = on_lost
        self._deliveries = Deliveries(on_taken, channel.wire.transport, channel.below.number)

    @property
    def is_open(self) -> bool:
        return not self._deliveries.is_closed

    def remove(self, tag: int) -> bool:
        return self._deliveries.ack(tag)

    async def close(self) -> None:
        self._on_lost = None
        deliveries, channel = self._deliveries, self._channel
        try:
            with suppress(*CONNECTION_ERRORS), lost_as_error():
                deliveries.flush()
                if not deliveries.is_closed:
                    with self._patience.answer() as seconds:
                        await while_open(channel, channel.set_qos(self._prefetch, timeout=seconds))
                    await asyncio.sleep(TRAVEL if deliveries.is_busy else 0)
                    deliveries.flush()
        finally:
            await self._discard(self._patience.seconds)

    async def open(self, connection: WiredConnection, queue: str, offset: Offset | None) -> None:
        """Consume the queue. Raises one of `CONNECTION_ERRORS`; the channel is closed then."""
        channel, deliveries, lost = self._channel, self._deliveries, self._channel.closing
        before = cancellations()
        lost.add_done_callback(self._lost)
        channel.below.on_consumer_cancel_callbacks.add(lambda _: self._cancelled())
        connection.wire.splitter.tap(channel.below.number, deliveries)
        try:
            await while_open(connection, channel.set_qos(self._prefetch, timeout=RPC))
            source = await channel.get_queue(queue, ensure=False)
            arguments: Any = None if offset is None else {STREAM_OFFSET: offset}
            await while_open(connection, source.consume(untapped, arguments=arguments, timeout=RPC))
            heed_cancellation(before)
        except BaseException:
            self._on_lost = None
            await self._discard()
            raise

    async def _discard(self, timeout: float = 2) -> None:
        self._deliveries.close()
        await close_quietly(self._channel, timeout)

    def _cancelled(self) -> None:
        """The broker consumes no more for us, and may have made another consumer the active one: what is in hand goes
        back with the channel."""
        self._report(explain(Cancelled("the broker cancelled the consumer; was the queue deleted?")))

    def _lost(self, closing: "asyncio.Future[None]") -> None:
        self._deliveries.close()
        self._report(explain(why_lost(closing)))

    def _report(self, reason: str) -> None:
        on_lost, self._on_lost = self._on_lost, None
        if on_lost is not None:
            on_lost(reason)
