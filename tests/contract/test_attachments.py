"""Attachments: what a single active consumer has in hand goes to the next one, at once and in order."""

import asyncio

import pytest
from bench import Bench
from waiting import Arrivals

from holdfast.broker import Attachment, Broker, Queue, Topology
from holdfast.events import Message, TopologyMissing


def single(name: str) -> Topology:
    """A queue with one active consumer, the first that asked."""
    arguments = {"x-queue-type": "quorum", "x-single-active-consumer": True, "x-delivery-limit": 1_000_000_000}
    return Topology(queues=(Queue(name, arguments),))


class Hand:
    """One attachment to a queue, and what it has in hand."""

    def __init__(self) -> None:
        self.came: Arrivals[tuple[str, int]] = Arrivals()
        self.lost: Arrivals[str] = Arrivals()
        self.attachment: Attachment

    async def attach(self, broker: Broker, queue: str, prefetch: int = 10) -> "Hand":
        self.attachment = await broker.attach(queue, prefetch=prefetch, on_taken=self._take, on_lost=self.lost)
        return self

    def _take(self, message: Message, tag: int, redelivered: bool) -> None:
        self.came((message.body.decode(), tag))

    async def bodies(self, count: int) -> list[str]:
        return [body for body, _ in await self.came.take(count)]


async def fill(broker: Broker, queue: str, numbers: range) -> None:
    messages = [Message(str(number).encode(), "", queue, message_id=f"m{number}") for number in numbers]
    await asyncio.gather(*(broker.publish(message, timeout=60) for message in messages))


async def test_the_next_attachment_is_given_what_the_first_one_held_and_then_the_rest(bench: Bench) -> None:
    queue = bench.name("single")
    await bench.declare(single(queue))
    await fill(bench.broker, queue, range(8))
    first = await Hand().attach(bench.broker, queue, prefetch=5)
    held = await first.came.take(5)
    second = await Hand().attach(bench.broker, queue)

    first.attachment.remove(held[1][1])
    first.attachment.remove(held[3][1])
    await first.attachment.close()

    assert await second.bodies(6) == ["0", "2", "4", "5", "6", "7"]
    await second.attachment.close()


async def test_a_second_attachment_to_a_single_queue_is_given_nothing_meanwhile(bench: Bench) -> None:
    queue = bench.name("single")
    await bench.declare(single(queue))
    first = await Hand().attach(bench.broker, queue)
    second = await Hand().attach(bench.broker, queue)

    await fill(bench.broker, queue, range(4))

    assert await first.bodies(4) == ["0", "1", "2", "3"]
    assert second.came.all == []
    await first.attachment.close()
    assert await second.bodies(4) == ["0", "1", "2", "3"]
    await second.attachment.close()


async def test_a_lost_attachment_is_not_restored_and_removes_nothing(bench: Bench) -> None:
    queue = bench.name("single")
    await bench.declare(single(queue))
    await fill(bench.broker, queue, range(2))
    hand = await Hand().attach(bench.broker, queue)
    [(_, tag), _] = await hand.came.take(2)

    bench.server.lose_connection(bench.broker)

    assert await hand.lost.next()
    assert not hand.attachment.is_open and not hand.attachment.remove(tag)
    await hand.attachment.close()
    again = await Hand().attach(bench.broker, queue)
    assert await again.bodies(2) == ["0", "1"]
    await again.attachment.close()


async def test_an_attachment_without_a_limit_has_all_in_hand(bench: Bench) -> None:
    """Quorum queues take a prefetch of 0 for 2,000."""
    queue = bench.name("single")
    await bench.declare(single(queue))
    await fill(bench.broker, queue, range(2_500))

    hand = await Hand().attach(bench.broker, queue, prefetch=0)

    assert await hand.bodies(2_500) == [str(number) for number in range(2_500)]
    await hand.attachment.close()


async def test_an_attachment_hears_that_its_queue_was_deleted(bench: Bench) -> None:
    queue = bench.name("single")
    await bench.declare(single(queue))
    hand = await Hand().attach(bench.broker, queue)

    await bench.server.delete_queue(queue)

    assert await hand.lost.next()
    await hand.attachment.close()


async def test_an_attachment_to_a_queue_that_is_not_there_is_refused(bench: Bench) -> None:
    with pytest.raises(TopologyMissing):
        await Hand().attach(bench.broker, bench.name("missing"))
