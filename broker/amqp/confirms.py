"""What the broker says of the publishes of one channel: `basic.ack`, `basic.nack`, `basic.return`."""

import asyncio
import struct
from collections import OrderedDict
from typing import Literal, TypeAlias

from ...events import Message
from .deliveries import CLOSE, RETURN, Content
from .splitter import METHOD

Verdict: TypeAlias = Literal["confirmed", "refused", "unroutable"]
Waiting: TypeAlias = "asyncio.Future[Verdict]"
Named: TypeAlias = tuple[str | None, str, str]
"""What a return names its publish by: message id, exchange and routing key."""

_ACK, _NACK = b"\x00\x3c\x00\x50", b"\x00\x3c\x00\x78"
_TAG_AND_FLAG = struct.Struct(">QB")


class Confirms:
    """A tap of a channel in confirm mode. The tags of its publishes count from 1, in the order of `expect`."""

    def __init__(self) -> None:
        self.is_closed = False
        """Whether the broker has closed the channel (see `Deliveries`)."""
        self._last = 0
        self._waiting: OrderedDict[int, tuple[Waiting, Named]] = OrderedDict()  # no body: a confirm may take hours
        self._returned: set[int] = set()
        self._address = b"", b""
        self._content: Content | None = None  # of a message that is being returned, to its address
        self._loop = asyncio.get_running_loop()

    @property
    def is_idle(self) -> bool:
        """Whether there is a verdict on every publish."""
        return not self._waiting

    def expect(self, message: Message) -> Waiting:
        """The verdict on the next publish. Fails with `ConnectionError`, or what closed the channel."""
        self._last += 1
        waiting: Waiting = self._loop.create_future()
        self._waiting[self._last] = (waiting, (message.message_id, message.exchange, message.routing_key))
        return waiting

    def lost(self, error: BaseException) -> None:
        """There will be no more verdicts."""
        waiting, self._waiting = self._waiting, OrderedDict()
        for future, _ in waiting.values():
            if not future.done():
                future.set_exception(error)

    def take(self, kind: int, data: bytes, start: int, end: int) -> int:
        """See `Tap`."""
        if kind != METHOD:
            if self._content is None:
                return 0
            if self._content.add(kind, data[start:end]):
                content, self._content = self._content, None
                self._return(content.message(*self._address))
            return end + 1
        method, self._content = data[start : start + 4], None
        if method in (_ACK, _NACK):
            if start + 4 + _TAG_AND_FLAG.size > end:
                raise IndexError
            tag, flags = _TAG_AND_FLAG.unpack_from(data, start + 4)
            self._settle(tag, multiple=flags & 1 == 1, verdict="confirmed" if method == _ACK else "refused")
        elif method == RETURN:
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

    def _settle(self, tag: int, *, multiple: bool, verdict: Verdict) -> None:
        if not multiple:
            self._end(tag, verdict)
            return
        while self._waiting and (not tag or next(iter(self._waiting)) <= tag):
            self._end(next(iter(self._waiting)), verdict)

    def _end(self, tag: int, verdict: Verdict) -> None:
        future, _ = self._waiting.pop(tag, (None, None))
        if tag in self._returned:
            self._returned.discard(tag)
            verdict = "unroutable"
        if future is not None and not future.done():
            future.set_result(verdict)

    def _return(self, returned: Message) -> None:
        """It comes before the confirm of the same publish, which says nothing of it but its tag: the first that waits
        with the same id and address is meant."""
        named = (returned.message_id, returned.exchange, returned.routing_key)
        for tag, (_, expected) in self._waiting.items():
            if tag not in self._returned and named == expected:
                self._returned.add(tag)
                return
