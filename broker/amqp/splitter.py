"""Splits what a socket gives into frames, and takes those of tapped channels out of the stream.

Frames are those of AMQP 0-9-1, 2.3.5: type, channel, length, payload, end mark. Whatever no tap takes goes on
untouched; so does everything, from the first byte that cannot be a frame.
"""

import math
import struct
import time
from collections.abc import Callable
from typing import Final, Protocol

HEAD: Final = struct.Struct(">BHI")
METHOD: Final = 1
HEADER: Final = 2
BODY: Final = 3
BEAT: Final = 8
END: Final = 0xCE
HEARTBEAT: Final = b"\x08\x00\x00\x00\x00\x00\x00\xce"
FRAME_MAX: Final = 131_072
"""Bytes of the largest frame that RabbitMQ proposes by default."""

CLOSE: Final = b"\x00\x14\x00\x28"
"""Class and method of `channel.close`."""

BODY_SIZE: Final = struct.Struct(">Q")
BODY_SIZE_AT: Final = 4  # in the payload of a header frame
_KINDS: Final = frozenset((METHOD, HEADER, BODY, BEAT))
_CLOSE_OK: Final = b"\x00\x14\x00\x29"
_LAST: Final = (CLOSE, _CLOSE_OK, b"\x00\x0a\x00\x32")  # of a channel; and `connection.close`
_TEXT_AT: Final = 6  # in the payload of those with a text, past class, method and code


class Tap(Protocol):
    """What takes frames of one channel."""

    def take(self, kind: int, data: bytes, start: int, end: int) -> int:
        """Take the frame with the payload `data[start:end]`, and optionally frames that follow it.

        Returns where the taken frames end, or 0 if none was taken. May raise `IndexError` or `struct.error` for a
        payload that is too short, having taken nothing."""
        ...


class Splitter:
    """Feed it with bytes from the socket; `pass_on` is called with those that are not taken, in order.

    After `alive_after` seconds in which everything was taken, a heartbeat frame is passed on: the reader behind judges
    by frames whether its peer lives.
    """

    def __init__(self, pass_on: Callable[[bytes], object], alive_after: float = math.inf) -> None:
        self._pass_on = pass_on
        self._alive_after = alive_after
        self._passed_at = time.monotonic()
        self._taps: dict[int, Tap] = {}
        self._rest = b""
        self._raw = False
        self.largest = FRAME_MAX
        """The payload that the peer never exceeds, in bytes."""

    def tap(self, channel: int, tap: Tap) -> None:
        """Let `tap` take frames of a channel, up to the last one: the broker closes it, or confirms that it is closed.
        Of a channel that was given up aiormq reads nothing more, and what came would hold up all others."""
        self._taps[channel] = tap

    def feed(self, data: bytes) -> None:  # noqa: C901 (one loop over bytes, run for each frame)
        """Split `data`, which may begin and end within a frame."""
        if self._raw:
            self._pass_on(data)
            return
        if self._rest:
            data = self._rest + data
        at = passed = 0
        size, taps, unpack = len(data), self._taps, HEAD.unpack_from
        kind: int
        channel: int
        length: int  # what a struct gives has no type, and compiled code is slow where it knows none
        while size - at >= 7:
            kind, channel, length = unpack(data, at)
            end = at + 7 + length
            if length > self.largest or kind not in _KINDS or (end < size and data[end] != END):
                self._raw = True
                break
            if end >= size:
                break
            taken = 0
            if (tap := taps.get(channel)) is not None:
                try:
                    taken = tap.take(kind, data, at + 7, end)
                except (struct.error, IndexError):  # the reader behind is to say so
                    self._raw = True
                    break
            if taken:
                if passed < at:
                    self._hand_on(data[passed:at])
                at = passed = taken
            else:
                if kind == METHOD and data[at + 7 : at + 11] in _LAST:
                    taps.pop(channel, None)
                    data = _legible(data, at + 7 + _TEXT_AT, end)
                at = end + 1
        if self._raw:
            at = size
        if passed < at:
            self._hand_on(data[passed:at])
        elif at and time.monotonic() - self._passed_at > self._alive_after:
            self._hand_on(HEARTBEAT)
        self._rest = data[at:]

    def end(self) -> None:
        """Pass on what is left, a frame cut short: the socket has ended."""
        rest, self._rest = self._rest, b""
        if rest:
            self._hand_on(rest)

    def _hand_on(self, data: bytes) -> None:
        self._passed_at = time.monotonic()
        self._pass_on(data)


class Content:
    """A header frame and the body frames that follow it."""

    __slots__ = ("_body", "_missing", "header")

    def __init__(self) -> None:
        self.header = b""
        self._body: list[bytes] = []
        self._missing = 0

    def add(self, kind: int, payload: bytes) -> bool:
        """Return whether the content is complete. Raises `IndexError` for a body without a header."""
        if kind == HEADER:
            (self._missing,) = BODY_SIZE.unpack_from(payload, BODY_SIZE_AT)
            self.header, self._body = payload, []
        elif not self.header:
            raise IndexError
        else:
            self._body.append(payload)
            self._missing -= len(payload)
        return self._missing <= 0

    @property
    def body(self) -> bytes:
        return self._body[0] if len(self._body) == 1 else b"".join(self._body)


def _legible(data: bytes, at: int, end: int) -> bytes:
    """Return the frames with a reply text at `at` that UTF-8 can decode. RabbitMQ cuts it at 252 bytes, within a
    character too, and pamqp ends the connection for that."""
    if at >= end:
        return data
    begin = at + 1
    after = min(begin + data[at], end)
    try:
        str(data[begin:after], "utf-8")
    except UnicodeDecodeError:
        return data[:begin] + bytes(byte if byte < 128 else ord("?") for byte in data[begin:after]) + data[after:]
    return data
