"""Which acks a channel has to send: as few frames as can be, and never one for what is not done."""

import struct
from bisect import bisect_right

_ACK = struct.Struct(">BHIHHQBB")  # type, channel, length, class, method, tag, flag, end mark


class Acks:
    """The tags of one channel, which begin at 1 and leave no gap.

    `take` gives one `multiple` ack for the finished prefix, and single ones for what finished behind a tag that has
    not. The tag of a multiple ack is always one that is itself still to be acked (RabbitMQ closes the channel for
    another), and everything below it is finished. What was settled behind an unfinished tag is kept in runs, of which
    there are no more than unfinished tags: one that stays so for hours costs no memory.
    """

    def __init__(self) -> None:
        self._head = 1  # below it everything is settled
        self._fresh: dict[int, None] = {}  # finished, their acks still to be sent; in the order they finished
        self._firsts: list[int] = []  # of runs of tags that are settled, not below the head
        self._lasts: list[int] = []

    def ack(self, tag: int) -> bool:
        """It is done. False where it was settled before."""
        if self._is_finished(tag):
            return False
        self._fresh[tag] = None
        return True

    def returned(self, tag: int) -> bool:
        """It was rejected, on the wire already. False where it was settled before."""
        if self._is_finished(tag):
            return False
        self._settle(tag)
        return True

    def take(self) -> list[tuple[int, bool]]:
        """The acks to send now: tag, and whether it is a multiple one."""
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

    def _is_finished(self, tag: int) -> bool:
        if tag < self._head or tag in self._fresh:
            return True
        at = bisect_right(self._firsts, tag) - 1
        return at >= 0 and tag <= self._lasts[at]

    def _settle(self, tag: int) -> None:
        """Put it into the runs: it may join two."""
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


def ack_frame(channel: int, tag: int, *, multiple: bool) -> bytes:
    """`basic.ack`."""
    return _ACK.pack(1, channel, 13, 60, 80, tag, multiple, 0xCE)


def reject_frame(channel: int, tag: int) -> bytes:
    """`basic.reject`, back to the queue."""
    return _ACK.pack(1, channel, 13, 60, 90, tag, 1, 0xCE)
