"""Acks and rejects that are written to the socket."""

from typing import Any, cast

import pamqp.frame
from aiormq import spec

from holdfast.broker.amqp.deliveries import Deliveries


class Written:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.frames = b""

    def is_closing(self) -> bool:
        return False

    def write(self, frames: bytes) -> None:
        self.frames += frames


async def test_what_was_acked_is_not_rejected_as_well() -> None:
    transport = Written()
    deliveries = Deliveries(lambda *_: None, cast("Any", transport), 1)

    deliveries.ack(1)
    again = deliveries.give_back(1)
    deliveries.flush()

    assert (again, transport.frames) == (False, pamqp.frame.marshal(spec.Basic.Ack(1, False), 1))
