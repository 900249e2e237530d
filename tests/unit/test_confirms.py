"""What the broker says of publishes reaches each of them, however it is said."""

import asyncio
from typing import Any

import pamqp.frame
import pytest
from aiormq import spec
from builders import a_message
from pamqp.body import ContentBody
from pamqp.header import ContentHeader

from holdfast.broker.amqp.confirms import IN_FLIGHT, Confirms
from holdfast.broker.amqp.splitter import Splitter
from holdfast.events import Message


class Broker:
    """Confirms fed with frames, as a broker would send them on channel 3."""

    def __init__(self) -> None:
        self.confirms = Confirms()
        self.passed: list[bytes] = []
        self._splitter = Splitter(self.passed.append)
        self._splitter.tap(3, self.confirms)

    def says(self, *frames: Any) -> None:
        self._splitter.feed(b"".join(pamqp.frame.marshal(frame, 3) for frame in frames))

    def returns(self, message: Message) -> None:
        self.says(
            spec.Basic.Return(312, "NO_ROUTE", message.exchange, message.routing_key),
            ContentHeader(0, len(message.body), spec.Basic.Properties(message_id=message.message_id)),
            *([ContentBody(message.body)] if message.body else []),
        )


def published(broker: Broker, count: int) -> list[Any]:
    return [broker.confirms.expect(a_message(message_id=f"m-{n}")) for n in range(1, count + 1)]


def verdicts(waiting: list[Any]) -> list[str | None]:
    return [future.result() if future.done() else None for future in waiting]


async def test_one_ack_confirms_one_and_a_multiple_one_all_up_to_it() -> None:
    broker = Broker()
    waiting = published(broker, 5)

    broker.says(spec.Basic.Ack(4, False))
    broker.says(spec.Basic.Ack(2, True))

    assert verdicts(waiting) == ["confirmed", "confirmed", None, "confirmed", None]


async def test_a_slot_is_free_with_the_verdict_and_not_when_its_publish_has_given_up() -> None:
    broker = Broker()
    for _ in range(IN_FLIGHT):
        await broker.confirms.slots.acquire()
    waiting = [broker.confirms.expect(a_message(), has_slot=True) for _ in range(IN_FLIGHT)]

    waiting[0].cancel()
    before = broker.confirms.slots.locked()
    broker.says(spec.Basic.Ack(1, False))

    assert (before, broker.confirms.slots.locked()) == (True, False)


async def test_tag_nought_with_multiple_means_all() -> None:
    broker = Broker()
    waiting = published(broker, 3)

    broker.says(spec.Basic.Ack(0, True))

    assert verdicts(waiting) == ["confirmed"] * 3


async def test_nacks_among_acks_refuse_only_what_they_name() -> None:
    broker = Broker()
    waiting = published(broker, 4)

    broker.says(spec.Basic.Ack(1, False), spec.Basic.Nack(3, True), spec.Basic.Ack(4, False))

    assert verdicts(waiting) == ["confirmed", "refused", "refused", "confirmed"]


@pytest.mark.parametrize("body", [b"", b"{}"])
async def test_a_returned_publish_is_unroutable_and_its_neighbours_are_not(body: bytes) -> None:
    broker = Broker()
    messages = [a_message(message_id=name, body=body) for name in ("m-1", "m-2", "m-3")]
    waiting = [broker.confirms.expect(message) for message in messages]

    broker.returns(messages[1])
    broker.says(spec.Basic.Ack(3, True))

    assert verdicts(waiting) == ["confirmed", "unroutable", "confirmed"]


async def test_of_two_publishes_of_one_message_the_one_that_was_returned_is_unroutable() -> None:
    broker = Broker()
    copies = [a_message(message_id="m", routing_key=key) for key in ("there", "nowhere", "nowhere")]
    waiting = [broker.confirms.expect(copy) for copy in copies]

    broker.returns(copies[1])
    broker.returns(copies[2])
    broker.says(spec.Basic.Ack(3, True))

    assert verdicts(waiting) == ["confirmed", "unroutable", "unroutable"]


async def test_a_lost_channel_fails_all_that_waits_and_nothing_that_was_told() -> None:
    broker = Broker()
    waiting = published(broker, 2)
    broker.says(spec.Basic.Ack(1, False))

    broker.confirms.lost(ConnectionError("gone"))

    assert waiting[0].result() == "confirmed"
    with pytest.raises(ConnectionError, match="gone"):
        await waiting[1]


async def test_who_no_longer_waits_is_passed_over() -> None:
    broker = Broker()
    waiting = published(broker, 2)
    waiting[0].cancel()

    broker.says(spec.Basic.Ack(2, True))

    assert await waiting[1] == "confirmed"


async def test_what_is_no_word_on_a_publish_goes_on_to_aiormq() -> None:
    broker, close = Broker(), spec.Channel.Close(404, "NOT_FOUND", 60, 40)

    broker.says(close)
    await asyncio.sleep(0)

    assert broker.passed == [pamqp.frame.marshal(close, 3)]
