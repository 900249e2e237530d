"""The deliveries of one channel, put together from method, header and body frames (AMQP 0-9-1, 1.8.3.13)."""

import struct
from collections.abc import Callable
from typing import TypeAlias

from ...events import Message
from .content import message_of
from .splitter import BODY, END, HEAD, HEADER, METHOD

OnMessage: TypeAlias = Callable[[Message, int, bool], None]
"""Called with a message, its delivery tag and whether it was delivered before."""

CLOSE = b"\x00\x14\x00\x28"  # of the channel
DELIVER = b"\x00\x3c\x00\x3c"
RETURN = b"\x00\x3c\x00\x32"
_TAG_AND_FLAG = struct.Struct(">QB")
_BODY_SIZE = struct.Struct(">Q")
_SIZE_AT = 4  # in the payload of a header frame


class Content:
    """A header frame and the body frames that follow it."""

    __slots__ = ("_body", "_header", "_missing")

    def __init__(self) -> None:
        self._header = b""
        self._body: list[bytes] = []
        self._missing = 0

    def add(self, kind: int, payload: bytes) -> bool:
        """Whether it is whole now. Raises `IndexError` for a body without a header."""
        if kind == HEADER:
            (self._missing,) = _BODY_SIZE.unpack_from(payload, _SIZE_AT)
            self._header, self._body = payload, []
        elif not self._header:
            raise IndexError
        else:
            self._body.append(payload)
            self._missing -= len(payload)
        return self._missing <= 0

    def message(self, exchange: bytes, key: bytes) -> Message:
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        return message_of(exchange, key, self._header, body)


class Deliveries:
    """A tap that takes what a channel's consumer is sent."""

    __slots__ = ("_content", "_exchange", "_key", "_on_message", "_redelivered", "_tag", "is_closed")

    def __init__(self, on_message: OnMessage) -> None:
        self._on_message = on_message
        self.is_closed = False
        """Whether the broker has closed the channel: what is written on it from now on ends the connection, and aiormq
        takes some turns of the loop to say so."""
        self._tag = 0
        self._redelivered = False
        self._exchange = self._key = b""
        self._content: Content | None = None  # of a delivery whose method has come

    def take(self, kind: int, data: bytes, start: int, end: int) -> int:
        """See `Tap`."""
        if kind == METHOD:
            self._content = None
            if (method := data[start : start + 4]) != DELIVER:
                self.is_closed = self.is_closed or method == CLOSE
                return 0
            at = start + 5 + data[start + 4]  # past the consumer tag
            tag, flag = _TAG_AND_FLAG.unpack_from(data, at)
            at += 9
            middle = at + 1 + data[at]
            exchange, key = data[at + 1 : middle], data[middle + 1 : middle + 1 + data[middle]]
            if middle + 1 + data[middle] > end:
                raise IndexError
            whole = whole_content(data, start - 7, end + 1)
            if whole is not None:
                header, body, after = whole
                self._on_message(message_of(exchange, key, header, body), tag, flag & 1 == 1)
                return after
            self._tag, self._redelivered, self._exchange, self._key = tag, flag & 1 == 1, exchange, key
            self._content = Content()
        elif self._content is None:
            return 0
        elif self._content.add(kind, data[start:end]):
            content, self._content = self._content, None
            self._on_message(content.message(self._exchange, self._key), self._tag, self._redelivered)
        return end + 1


def whole_content(data: bytes, frame: int, at: int) -> tuple[bytes, bytes, int] | None:
    """The header and the body that follow at `at`, each in one frame of the same channel as that at `frame`, and where
    they end. None where not all of it is there, or in more frames."""
    size = len(data)
    if size - at < 7 or data[frame + 1 : frame + 3] != data[at + 1 : at + 3]:
        return None
    kind, channel, length = HEAD.unpack_from(data, at)
    end = at + 7 + length
    if kind != HEADER or length < _SIZE_AT + 8 or end >= size or data[end] != END:
        return None
    header = data[at + 7 : end]
    (missing,) = _BODY_SIZE.unpack_from(header, _SIZE_AT)
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
