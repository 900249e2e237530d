"""Publishing on one channel in confirm mode, and the broker's verdicts: `basic.ack`, `basic.nack`, `basic.return`."""

import asyncio
import struct
from collections import OrderedDict
from typing import Final, Literal, TypeAlias

from ...events import Message
from ..codec import Packed, unpack
from .connection import WiredChannel, close_quietly
from .lifetime import why_lost
from .splitter import CLOSE, METHOD, Content

Verdict: TypeAlias = Literal["confirmed", "refused", "unroutable"]
Waiting: TypeAlias = "asyncio.Future[Verdict]"
Named: TypeAlias = tuple[str | None, str, str]
"""What a return names its publish by: message id, exchange and routing key."""

_ACK: Final = b"\x00\x3c\x00\x50"
_NACK: Final = b"\x00\x3c\x00\x78"
_RETURN: Final = b"\x00\x3c\x00\x32"
_TAG_AND_FLAG: Final = struct.Struct(">QB")
_ENOUGH: Final = 32_768  # bytes that are written without waiting for the end of the turn

IN_FLIGHT = 300
"""Publishes with a time limit that a channel may have without a verdict, also when their time is over. Copies have no
limit: prefetch bounds them. RabbitMQ reads nothing more from a connection once 400 wait for one of its channels."""


class Confirms:
    """A tap of a channel in confirm mode. The tags of its publishes count from 1, in the order of `expect`."""

    def __init__(self) -> None:
        self.is_closed = False
        """Whether the channel is lost, or the broker has closed it (see `Deliveries`)."""
        self.waiting: OrderedDict[int, tuple[Waiting, Named, bool]] = OrderedDict()  # no body: it may take hours
        self.slots = asyncio.Semaphore(IN_FLIGHT)
        self._last = 0
        self._returned: set[int] = set()
        self._address = b"", b""
        self._content: Content | None = None  # of a message that is being returned, to its address
        self._loop = asyncio.get_running_loop()

    def expect(self, message: Message, *, has_slot: bool = False) -> Waiting:
        """Return the verdict on the next publish, which frees its slot. It fails with `ConnectionError`, or the error
        that closed the channel."""
        self._last += 1
        waiting: Waiting = self._loop.create_future()
        self.waiting[self._last] = (waiting, (message.message_id, message.exchange, message.routing_key), has_slot)
        return waiting

    def lost(self, error: BaseException) -> None:
        """Fail all verdicts that are missing. Those who wait for a slot have one, each from the one before."""
        self.is_closed = True
        waiting, self.waiting = self.waiting, OrderedDict()
        for future, _, _ in waiting.values():
            if not future.done():
                future.set_exception(error)
        self.slots.release()

    def take(self, kind: int, data: bytes, start: int, end: int) -> int:
        """See `Tap`."""
        if kind != METHOD:
            if self._content is None:
                return 0
            if self._content.add(kind, data[start:end]):
                content, self._content = self._content, None
                self._return(unpack(*self._address, content.header, b""))
            return end + 1
        method, self._content = data[start : start + 4], None
        if method in (_ACK, _NACK):
            if start + 4 + _TAG_AND_FLAG.size > end:
                raise IndexError
            tag, flags = _TAG_AND_FLAG.unpack_from(data, start + 4)
            self._settle(tag, flags & 1, "confirmed" if method == _ACK else "refused")
        elif method == _RETURN:
            at = start + 7 + data[start + 6]  # past code and text
            middle = at + 1 + data[at]
            if middle + 1 + data[middle] > end:
                raise IndexError
            self._address = data[at + 1 : middle], data[middle + 1 : middle + 1 + data[middle]]
            self._content = Content()
        else:
            self.is_closed = self.is_closed or method == CLOSE
            return 0
        return end + 1

    def _settle(self, tag: int, multiple: int, verdict: Verdict) -> None:
        """Hand on the verdict on a tag, or with `multiple` on all up to it; tag 0 then means all."""
        waiting = self.waiting
        one = next(iter(waiting), 0) if multiple else tag
        while one in waiting and (one <= tag or not tag):
            future, _, has_slot = waiting.pop(one)
            if has_slot:
                self.slots.release()
            if not future.done():
                future.set_result("unroutable" if one in self._returned else verdict)
            self._returned.discard(one)
            if not multiple:
                return
            one = next(iter(waiting), 0)

    def _return(self, returned: Message) -> None:
        """Note a return. It comes before the confirm of the same publish, whose tag it does not name: the first that
        waits with the same id and address is meant."""
        named = (returned.message_id, returned.exchange, returned.routing_key)
        for tag, (_, expected, _) in self.waiting.items():
            if tag not in self._returned and named == expected:
                self._returned.add(tag)
                return


class PublishChannel:
    """One channel to publish on. The publishes of one turn of the loop go in one write. One that finds none in flight
    is written at once: a caller that publishes one by one waits for nobody."""

    def __init__(self, channel: WiredChannel, frame_max: int) -> None:
        self._channel = channel
        self._number = channel.below.number
        self._frame_max = frame_max
        self.wire = channel.wire
        self._transport = channel.wire.transport
        self._confirms = Confirms()
        self.slots = self._confirms.slots
        """One for each publish with a time limit, to be acquired before it is sent."""
        self._frames: list[bytes] = []
        self._size = 0
        channel.wire.splitter.tap(self._number, self._confirms)
        channel.closing.add_done_callback(self._lost)

    async def send(self, message: Message, packed: Packed, *, has_slot: bool = False) -> Verdict:
        """Publish; return the broker's verdict. Raises one of `CONNECTION_ERRORS` if the channel is lost before."""
        if self._confirms.is_closed:
            self.slots.release()  # the next one who waits is to see it, too
            raise ConnectionError("the channel was closed")
        frames, is_alone = packed.frames(self._number, self._frame_max), not self._confirms.waiting
        verdict = self._confirms.expect(message, has_slot=has_slot)
        if not self._frames and not is_alone:
            asyncio.get_running_loop().call_soon(self._flush)
        self._frames.append(frames)
        self._size += len(frames)
        if is_alone or self._size > _ENOUGH:
            self._flush()
        return await verdict

    @property
    def is_idle(self) -> bool:
        """Whether no publish is in flight."""
        return not self._confirms.waiting and not self._frames

    async def close(self, timeout: float) -> None:
        """Close the channel within `timeout` seconds, with what waits written. Nothing may be written behind the word
        that closes it."""
        self._flush()
        self._confirms.is_closed = True
        await close_quietly(self._channel, timeout)

    def _flush(self) -> None:
        frames, self._frames, self._size = self._frames, [], 0
        if frames and not self._confirms.is_closed and not self._transport.is_closing():
            self._transport.write(b"".join(frames))

    def _lost(self, closing: "asyncio.Future[None]") -> None:
        self._confirms.lost(why_lost(closing))
