"""Publishing on one channel in confirm mode: the frames of a turn of the loop written together, or through aiormq."""

import asyncio
from typing import Protocol

import aiormq
from aiormq import Channel
from aiormq.exceptions import DeliveryError

from ...events import Message
from .confirms import Confirms, Verdict
from .losses import close_quietly, while_open
from .packing import Packed
from .translate import to_properties
from .wire import Wire

_FRAME_MAX = 131_072
_ENOUGH = 32_768  # bytes that are written without waiting for the end of the turn


class Sending(Protocol):
    """One open channel."""

    @property
    def is_closed(self) -> bool: ...

    async def send(self, message: Message, packed: Packed) -> Verdict:
        """Publish; return what the broker said. Raises one of `CONNECTION_ERRORS` where the channel is lost before."""
        ...

    async def close(self) -> None: ...


class ThroughAiormq:
    """One publish at a time, through aiormq's queue of frames."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    @property
    def is_closed(self) -> bool:
        return self._channel.is_closed

    async def send(self, message: Message, packed: Packed) -> Verdict:
        publish = self._channel.basic_publish(
            message.body,
            exchange=message.exchange,
            routing_key=message.routing_key,
            properties=to_properties(message),
            mandatory=True,
            wait=False,
        )
        try:
            await (while_open(self._channel, publish) if self._channel.connection.write_queue.full() else publish)
        except aiormq.exceptions.PublishError:
            return "unroutable"
        except DeliveryError:
            return "refused"
        return "confirmed"

    async def close(self) -> None:
        await close_quietly(self._channel, 2)


class Direct:
    """The publishes of one turn in one write, each confirm a future of its own. One that finds nothing under way is
    written at once: whoever publishes one by one waits for nobody."""

    def __init__(self, wire: Wire, channel: Channel) -> None:
        self._wire = wire
        self._channel = channel
        self._frame_max = channel.connection.connection_tune.frame_max or _FRAME_MAX
        self._confirms = Confirms()
        self._frames: list[bytes] = []
        self._size = 0
        wire.tap(channel.number, self._confirms)
        self._closing = channel.closing
        self._closing.add_done_callback(self._lost)

    @property
    def is_closed(self) -> bool:
        return self._confirms.is_closed or self._channel.is_closed

    async def send(self, message: Message, packed: Packed) -> Verdict:
        if self._wire.is_full:
            await self._wire.drained()
        if self.is_closed:
            raise ConnectionError("the channel was closed")
        frames, alone = packed.frames(self._channel.number, self._frame_max), self._confirms.is_idle
        verdict = self._confirms.expect(message)
        if not self._frames and not alone:
            asyncio.get_running_loop().call_soon(self._flush)
        self._frames.append(frames)
        self._size += len(frames)
        if alone or self._size > _ENOUGH:
            self._flush()
        return await verdict

    async def close(self) -> None:
        self._flush()
        await close_quietly(self._channel, 2)

    def _flush(self) -> None:
        frames, self._frames, self._size = self._frames, [], 0
        if frames and not self.is_closed:
            self._wire.write(b"".join(frames))

    def _lost(self, closing: "asyncio.Future[None]") -> None:
        self._wire.untap(self._channel.number)
        error = None if closing.cancelled() else closing.exception()
        self._confirms.lost(error or ConnectionError("the channel was closed"))


def sending(channel: Channel, wire: Wire | None) -> Sending:
    """On a connection whose socket is tapped, directly."""
    return ThroughAiormq(channel) if wire is None else Direct(wire, channel)
