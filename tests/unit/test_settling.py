"""Acks and rejects that are written to the socket."""

from types import SimpleNamespace
from typing import Any, cast

from holdfast.broker.amqp.acks import ack_frame
from holdfast.broker.amqp.deliveries import Deliveries
from holdfast.broker.amqp.settling import Together


class Written:
    """A wire that keeps what is written."""

    def __init__(self) -> None:
        self.frames = b""

    def write(self, frames: bytes) -> bool:
        self.frames += frames
        return True


async def test_what_was_acked_is_not_rejected_as_well() -> None:
    wire, channel = Written(), SimpleNamespace(number=1, is_closed=False)
    settling = Together(cast("Any", wire), cast("Any", channel), Deliveries(lambda *_: None))

    await settling.ack(1)
    again = await settling.give_back(1)
    settling.flush()

    assert (again, wire.frames) == (False, ack_frame(1, 1, multiple=False))
