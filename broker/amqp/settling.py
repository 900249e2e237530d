"""Acks and rejects of one channel: written together once a turn of the loop, or one by one through aiormq."""

import asyncio
from typing import Protocol

from aiormq import Channel

from .acks import Acks, ack_frame, reject_frame
from .deliveries import Deliveries
from .losses import written
from .wire import Wire


class Settling(Protocol):
    """Settles deliveries of one channel. Each method returns False where the channel is lost."""

    async def ack(self, tag: int) -> bool: ...
    async def give_back(self, tag: int) -> bool: ...
    def flush(self) -> None:
        """Write what waits now."""


class OneByOne:
    """A frame for each, through aiormq's queue of frames."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    async def ack(self, tag: int) -> bool:
        return await written(self._channel, self._channel.basic_ack(tag, wait=False))

    async def give_back(self, tag: int) -> bool:
        return await written(self._channel, self._channel.basic_reject(tag, requeue=True, wait=False))

    def flush(self) -> None:
        """Nothing waits."""


class Together:
    """The acks of one turn of the loop in as few frames as can be. Rejects are written at once: a multiple ack that
    covers a rejected tag must come after it."""

    def __init__(self, wire: Wire, channel: Channel, deliveries: Deliveries) -> None:
        self._wire = wire
        self._channel = channel
        self._deliveries = deliveries
        self._number = channel.number
        self._acks = Acks()
        self._scheduled = False

    async def ack(self, tag: int) -> bool:
        if self._is_closed or not self._acks.ack(tag):
            return False
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self.flush)
        return True

    async def give_back(self, tag: int) -> bool:
        if self._is_closed or not self._acks.returned(tag):
            return False
        return self._wire.write(reject_frame(self._number, tag))

    def flush(self) -> None:
        self._scheduled = False
        if not self._is_closed:
            self._wire.write(b"".join(ack_frame(self._number, tag, multiple=many) for tag, many in self._acks.take()))

    @property
    def _is_closed(self) -> bool:
        return self._deliveries.is_closed or self._channel.is_closed
