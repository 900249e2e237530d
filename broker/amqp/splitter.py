"""Splits what a socket gives into frames, and takes those of tapped channels out of the stream.

Frames are those of AMQP 0-9-1, 2.3.5: type, channel, length, payload, end mark. Whatever no tap takes goes on
untouched; so does everything, from the first byte that cannot be a frame.
"""

import struct
from collections.abc import Callable
from typing import Protocol

HEAD = struct.Struct(">BHI")
METHOD, HEADER, BODY, BEAT = 1, 2, 3, 8
END = 0xCE
HEARTBEAT = b"\x08\x00\x00\x00\x00\x00\x00\xce"
_KINDS = (METHOD, HEADER, BODY, BEAT)
FRAME_MAX = 131_072  # what RabbitMQ proposes unless it is told otherwise


class Tap(Protocol):
    """What takes frames of one channel."""

    def take(self, kind: int, data: bytes, start: int, end: int) -> int:
        """Take the frame with the payload `data[start:end]`, and more of those that follow it if it likes. Returns
        where what was taken ends, or 0: nothing was. May raise `IndexError` or `struct.error` for a payload that is
        shorter than what it should hold, having taken nothing."""
        ...


class Splitter:
    """Feed it what the socket gave; `pass_on` is called with what is not taken, in order."""

    def __init__(self, pass_on: Callable[[bytes], None]) -> None:
        self._pass_on = pass_on
        self._taps: dict[int, Tap] = {}
        self._rest = b""
        self._raw = False
        self.largest = FRAME_MAX
        """The payload that the peer never exceeds, in bytes."""
        self.taken = 0
        """How often something was taken so far."""

    def tap(self, channel: int, tap: Tap) -> None:
        self._taps[channel] = tap

    def untap(self, channel: int) -> None:
        self._taps.pop(channel, None)

    def feed(self, data: bytes) -> None:  # noqa: C901 (one loop over bytes, run for each frame)
        if self._raw:
            self._pass_on(data)
            return
        if self._rest:
            data = self._rest + data
        at = passed = 0
        size, taps, unpack = len(data), self._taps, HEAD.unpack_from
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
                except (struct.error, IndexError):  # aiormq is to say so
                    self._raw = True
                    break
            if taken:
                if passed < at:
                    self._pass_on(data[passed:at])
                at = passed = taken
                self.taken += 1
            else:
                at = end + 1
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
