"""Splits what a socket gives into frames, and takes the deliveries of tapped channels out of the stream.

Frames are those of AMQP 0-9-1, 2.3.5: type, channel, length, payload, end mark. Whatever is not a delivery on a
tapped channel goes on untouched; so does everything, from the first byte that cannot be a frame.
"""

import struct
from collections.abc import Callable
from typing import TypeAlias

from ...events import Message
from .content import message_of

OnMessage: TypeAlias = Callable[[Message, int, bool], None]
"""Called with a message, its delivery tag and whether it was delivered before."""

HEARTBEAT = b"\x08\x00\x00\x00\x00\x00\x00\xce"
_HEAD = struct.Struct(">BHI")
_METHOD, _HEADER, _BODY, _BEAT = 1, 2, 3, 8
_DELIVER = b"\x00\x3c\x00\x3c"
_END = 0xCE
_LARGEST = 131_072 + 8  # frame_max, which aiormq negotiates and no broker exceeds
_TAG_AND_FLAG = struct.Struct(">QB")
_BODY_SIZE = struct.Struct(">Q")


class Tap:
    """One channel's deliveries, put together from method, header and body frames."""

    __slots__ = ("_body", "_exchange", "_header", "_key", "_missing", "_on_message", "_redelivered", "_tag")

    def __init__(self, on_message: OnMessage) -> None:
        self._on_message = on_message
        self._tag: int | None = None
        self._redelivered = False
        self._exchange = self._key = self._header = b""
        self._missing = 0
        self._body: list[bytes] = []

    def takes(self, kind: int, payload: bytes) -> bool:
        """Take the payload of a frame; False where it is no part of a delivery."""
        if kind == _METHOD:
            self._tag = None
            return payload[:4] == _DELIVER and self._begin(payload)
        if self._tag is None:
            return False
        if kind == _HEADER:
            self._header, self._body = payload, []
            (self._missing,) = _BODY_SIZE.unpack_from(payload, 4)
        else:
            self._body.append(payload)
            self._missing -= len(payload)
        if self._missing <= 0:
            self._end()
        return True

    def _begin(self, payload: bytes) -> bool:
        at = 5 + payload[4]  # past the consumer tag
        self._tag, flag = _TAG_AND_FLAG.unpack_from(payload, at)
        self._redelivered = flag & 1 == 1
        at += 9
        middle = at + 1 + payload[at]
        self._exchange = payload[at + 1 : middle]
        self._key = payload[middle + 1 : middle + 1 + payload[middle]]
        return True

    def _end(self) -> None:
        tag, self._tag = self._tag, None
        assert tag is not None
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body = []
        self._on_message(message_of(self._exchange, self._key, self._header, body), tag, self._redelivered)


class Splitter:
    """Feed it what the socket gave; `pass_on` is called with what is not taken, in order."""

    def __init__(self, pass_on: Callable[[bytes], None]) -> None:
        self._pass_on = pass_on
        self._taps: dict[int, Tap] = {}
        self._rest = b""
        self._raw = False
        self.taken = 0
        """How many frames were taken so far."""

    def tap(self, channel: int, on_message: OnMessage) -> None:
        self._taps[channel] = Tap(on_message)

    def untap(self, channel: int) -> None:
        self._taps.pop(channel, None)

    def feed(self, data: bytes) -> None:  # noqa: C901 (one loop over bytes, run for each frame)
        if self._raw:
            self._pass_on(data)
            return
        if self._rest:
            data = self._rest + data
        at = passed = 0
        size, taps = len(data), self._taps
        while size - at >= _HEAD.size:
            kind, channel, length = _HEAD.unpack_from(data, at)
            end = at + length + 8
            if kind not in (_METHOD, _HEADER, _BODY, _BEAT) or length > _LARGEST:
                self._raw = True
                break
            if end > size:
                break
            if data[end - 1] != _END:
                self._raw = True
                break
            tap = taps.get(channel)
            try:
                taken = tap is not None and tap.takes(kind, data[at + 7 : end - 1])
            except (struct.error, IndexError):  # shorter than what it should hold: aiormq is to say so
                self._raw = True
                break
            if taken:
                if passed < at:
                    self._pass_on(data[passed:at])
                passed = end
                self.taken += 1
            at = end
        if self._raw:
            at = size
        if passed < at:
            self._pass_on(data[passed:at])
        self._rest = data[at:]

    def end(self) -> None:
        """The socket has ended: what is left, a frame cut short, goes on."""
        rest, self._rest = self._rest, b""
        if rest:
            self._pass_on(rest)
