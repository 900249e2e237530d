"""The deliveries of one channel: taken out of its frames (AMQP 0-9-1, 1.8.3.13), and settled on its socket."""

import asyncio
import struct
from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from typing import Final, TypeAlias

from ...events import Message
from ..codec import unpack
from .splitter import BODY, BODY_SIZE_AT, CLOSE, END, HEAD, HEADER, METHOD, Content

_DELIVER: Final = b"\x00\x3c\x00\x3c"
_TAG: Final = struct.Struct(">Q")
_HEAD_AND_SIZE: Final = struct.Struct(">BHI4xQ")  # of a header frame: type, channel, length, and the body's size
_ACK: Final = struct.Struct(">BHIHHQBB")  # type, channel, length, class, method, tag, flag, end mark

# RabbitMQ's channel has some 32 acks and rejects on their way to a quorum queue at once. Those that come after wait in
# the channel for the first to be written, no answer reports when that is, and those that still wait die with the
# channel: of 64 acks at one time 31 came back in every fourth trial (3.10.8, 4.0.5, 4.3.6). So a busy channel lives on.
_ON_THEIR_WAY: Final = 32
TRAVEL: Final = 0.2
"""Seconds that a busy channel is kept open."""


OnMessage: TypeAlias = Callable[[Message, int, bool], None]
"""Called with a message, its delivery tag and whether it was delivered before."""


class Deliveries:
    """A tap for the deliveries of one channel, and their acks and rejects.

    The acks of one turn of the loop are written together. Rejects are written at once, because a multiple ack that
    covers a rejected tag must come after it.
    """

    __slots__ = (
        *("_acks", "_channel", "_content", "_exchange", "_key", "_on_message", "_redelivered", "_settled", "_tag"),
        *("_transport", "_waiting", "is_closed"),
    )

    def __init__(self, on_message: OnMessage, transport: asyncio.WriteTransport, channel: int) -> None:
        self.is_closed = False
        """Whether the channel is lost, or the broker has closed it: a frame written on it from now on would end the
        connection, and aiormq takes some turns of the loop to report it."""
        self._on_message = on_message
        self._transport = transport
        self._channel = channel
        self._acks = Acks()
        self._waiting = 0  # acks to be written with this turn of the loop
        self._settled: deque[tuple[float, int]] = deque(maxlen=_ON_THEIR_WAY)  # when, and how many
        self._tag = 0
        self._redelivered = False
        self._exchange = self._key = b""
        self._content: Content | None = None  # of a delivery whose method has come

    def take(self, kind: int, data: bytes, start: int, end: int) -> int:
        """See `Tap`."""
        if kind == METHOD:
            self._content = None
            if (method := data[start : start + 4]) != _DELIVER:
                self.is_closed = self.is_closed or method == CLOSE
                return 0
            at = start + 5 + data[start + 4]  # past the consumer tag
            tag: int
            (tag,) = _TAG.unpack_from(data, at)
            redelivered = data[at + 8] & 1 == 1
            at += 9
            middle = at + 1 + data[at]
            exchange, key = data[at + 1 : middle], data[middle + 1 : middle + 1 + data[middle]]
            if middle + 1 + data[middle] > end:
                raise IndexError
            whole = _whole_content(data, self._channel, end + 1)
            if whole is not None:
                header, body, after = whole
                self._on_message(unpack(exchange, key, header, body), tag, redelivered)
                return after
            self._tag, self._redelivered, self._exchange, self._key = tag, redelivered, exchange, key
            self._content = Content()
        elif self._content is None:
            return 0
        elif self._content.add(kind, data[start:end]):
            content, self._content = self._content, None
            message = unpack(self._exchange, self._key, content.header, content.body)
            self._on_message(message, self._tag, self._redelivered)
        return end + 1

    def ack(self, tag: int) -> bool:
        """Ack with this turn of the loop. Returns False if the channel is lost, or the delivery was settled before."""
        if self.is_closed or not self._acks.ack(tag):
            return False
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self.flush)
        self._waiting += 1
        return True

    def give_back(self, tag: int) -> bool:
        """Reject now, back to the queue. Returns False as `ack` does."""
        if self.is_closed or self._transport.is_closing() or not self._acks.returned(tag):
            return False
        self._transport.write(_ACK.pack(1, self._channel, 13, 60, 90, tag, 1, END))
        self._settled.append((asyncio.get_running_loop().time(), 1))
        return True

    def flush(self) -> None:
        """Write the acks that wait."""
        waiting, self._waiting = self._waiting, 0
        if not waiting or self.is_closed or self._transport.is_closing():
            return
        frames: list[bytes] = []
        for tag, many in self._acks.take():
            frames.append(_ACK.pack(1, self._channel, 13, 60, 80, tag, many, END))
        self._transport.write(b"".join(frames))
        self._settled.append((asyncio.get_running_loop().time(), waiting))

    def close(self, _: object = None) -> None:
        """Settle nothing more, and hand on nothing more: what still comes returns with the channel."""
        self.is_closed = True
        self._on_message = _drop

    @property
    def is_busy(self) -> bool:
        """Whether so much was settled a moment ago that some of it may still wait in the broker's channel."""
        since = asyncio.get_running_loop().time() - TRAVEL
        return sum(count for time, count in self._settled if time > since) >= _ON_THEIR_WAY


def _drop(message: Message, tag: int, redelivered: bool) -> None:
    """Take what nobody waits for."""


def _whole_content(data: bytes, channel: int, at: int) -> tuple[bytes, bytes, int] | None:
    """Return the header and the body that follow at `at`, each in one frame of the channel, and where they end; None if
    not all of it is there, or in more frames."""
    kind: int
    other: int
    length: int
    missing: int
    size = len(data)
    if size - at < _HEAD_AND_SIZE.size:
        return None
    kind, other, length, missing = _HEAD_AND_SIZE.unpack_from(data, at)
    begin = at + 7
    end = begin + length
    if kind != HEADER or other != channel or length < BODY_SIZE_AT + 8 or end >= size or data[end] != END:
        return None
    header = data[begin:end]
    if not missing:
        return header, b"", end + 1
    if size - end < 8:
        return None
    kind, other, length = HEAD.unpack_from(data, end + 1)
    begin = end + 8
    end = begin + length
    if kind != BODY or other != channel or length != missing or end >= size or data[end] != END:
        return None
    return header, data[begin:end], end + 1


class Acks:
    """The acks that a channel has to send: as few frames as can be, and never one for an unfinished delivery.

    Its tags begin at 1 and leave no gap. `take` gives one `multiple` ack for the finished prefix, and single ones for
    tags that finished behind an unfinished one. The tag of a multiple ack is always one that is itself still to be
    acked (RabbitMQ closes the channel for another), and everything below it is finished. Tags that were settled behind
    an unfinished one are kept in runs, of which there are no more than unfinished tags: one that stays unfinished for
    hours costs no memory.
    """

    def __init__(self) -> None:
        self._head = 1  # below it everything is settled
        self._fresh: dict[int, None] = {}  # finished, their acks still to be sent; in the order they finished
        self._firsts: list[int] = []  # of runs of tags that are settled, not below the head
        self._lasts: list[int] = []

    def ack(self, tag: int) -> bool:
        """Mark a tag as finished. Returns False if it was settled before."""
        if tag < self._head or tag in self._fresh or (self._firsts and self._is_in_run(tag)):
            return False
        self._fresh[tag] = None
        return True

    def returned(self, tag: int) -> bool:
        """Mark a tag as rejected, on the wire already. Returns False if it was settled before."""
        if self.is_finished(tag):
            return False
        self._settle(tag)
        return True

    def take(self) -> list[tuple[int, bool]]:
        """Return the acks to send now: tag, and whether it is a multiple one."""
        fresh, head, last, count = self._fresh, self._head, 0, 0
        while True:
            if head in fresh:
                del fresh[head]
                last, count, head = head, count + 1, head + 1
            elif self._firsts and self._firsts[0] == head:
                head = self._lasts.pop(0) + 1
                del self._firsts[0]
            else:
                break
        self._head, self._fresh = head, {}
        acks = [(last, count > 1)] if last else []
        for tag in fresh:
            self._settle(tag)
            acks.append((tag, False))
        return acks

    def is_finished(self, tag: int) -> bool:
        """Return whether a tag was acked or rejected."""
        return tag < self._head or tag in self._fresh or self._is_in_run(tag)

    def _is_in_run(self, tag: int) -> bool:
        at = bisect_right(self._firsts, tag) - 1
        return at >= 0 and tag <= self._lasts[at]

    def _settle(self, tag: int) -> None:
        """Put a tag into the runs: it may join two."""
        at = bisect_right(self._firsts, tag)
        follows = at > 0 and self._lasts[at - 1] == tag - 1
        if at < len(self._firsts) and self._firsts[at] == tag + 1:
            self._firsts[at] = self._firsts[at - 1] if follows else tag
            if follows:
                del self._firsts[at - 1], self._lasts[at - 1]
        elif follows:
            self._lasts[at - 1] = tag
        else:
            self._firsts.insert(at, tag)
            self._lasts.insert(at, tag)
