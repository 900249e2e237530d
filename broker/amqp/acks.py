"""Which acks a channel has to send: as few frames as can be, and never one for what is not done."""

import struct

_ACK = struct.Struct(">BHIHHQBB")  # type, channel, length, class, method, tag, flag, end mark


class Acks:
    """The tags of one channel, which begin at 1 and leave no gap.

    `take` gives one `multiple` ack for the finished prefix, and single ones for what finished behind a tag that has
    not. The tag of a multiple ack is always one that is itself still to be acked (RabbitMQ closes the channel for
    another), and everything below it is finished.
    """

    def __init__(self) -> None:
        self._head = 1  # the lowest tag that is not finished
        self._finished: dict[int, bool] = {}  # above the head; True where its ack is still to be sent
        self._fresh: list[int] = []  # those to send

    def ack(self, tag: int) -> bool:
        """It is done. False where it was settled before."""
        if not self._finish(tag, to_send=True):
            return False
        self._fresh.append(tag)
        return True

    def returned(self, tag: int) -> bool:
        """It was rejected, on the wire already. False where it was settled before."""
        return self._finish(tag, to_send=False)

    def take(self) -> list[tuple[int, bool]]:
        """The acks to send now: tag, and whether it is a multiple one."""
        finished, last, count = self._finished, 0, 0
        while (to_send := finished.pop(self._head, None)) is not None:
            if to_send:
                last, count = self._head, count + 1
            self._head += 1
        fresh, self._fresh = self._fresh, []
        acks = [(last, count > 1)] if last else []
        for tag in fresh:
            if tag >= self._head:
                finished[tag] = False
                acks.append((tag, False))
        return acks

    def _finish(self, tag: int, *, to_send: bool) -> bool:
        if tag < self._head or tag in self._finished:
            return False
        self._finished[tag] = to_send
        return True


def ack_frame(channel: int, tag: int, *, multiple: bool) -> bytes:
    """`basic.ack`."""
    return _ACK.pack(1, channel, 13, 60, 80, tag, multiple, 0xCE)


def reject_frame(channel: int, tag: int) -> bytes:
    """`basic.reject`, back to the queue."""
    return _ACK.pack(1, channel, 13, 60, 90, tag, 1, 0xCE)
