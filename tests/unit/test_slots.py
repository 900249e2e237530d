"""Slots: bounded for the process and for each lane, and no lane starves another."""

import asyncio
from typing import Any

from builders import a_message
from hypothesis import given
from hypothesis import strategies as st

from holdfast.broker import Delivery
from holdfast.consumer.slots import Lane, Slot, Slots


class Channel:
    """The consumer of deliveries: those of generation 1 are current."""

    def is_current(self, delivery: Delivery) -> bool:
        return delivery.generation == 1


CHANNEL: Any = Channel()


def a_delivery(tag: int = 1, generation: int = 1) -> Delivery:
    return Delivery(a_message(), "q", tag, generation, False, CHANNEL)


class Taken:
    """The deliveries that got a slot in one lane, in order, and the slots that are still theirs."""

    def __init__(self, slots: Slots, limit: int) -> None:
        self.tags: list[int] = []
        self.slots: list[Slot] = []
        self.lane: Lane = slots.lane(limit, self.take)

    def take(self, delivery: Delivery, slot: Slot) -> None:
        self.tags.append(delivery.tag)
        self.slots.append(slot)

    def offer(self, *tags: int) -> None:
        for tag in tags or (1,):
            self.lane.offer(a_delivery(tag))

    def free(self) -> None:
        with self.slots.pop(0):
            pass

    @property
    def running(self) -> int:
        return self.lane.running


def lanes(slots: Slots, *limits: int) -> list[Taken]:
    return [Taken(slots, limit) for limit in limits]


def test_a_lane_that_hangs_leaves_a_slot_to_every_other_lane() -> None:
    hanging, second, third = lanes(Slots(4), 4, 4, 4)

    hanging.offer(*range(20))
    second.offer()
    third.offer()

    assert (hanging.running, second.running, third.running) == (2, 1, 1)


def test_one_lane_alone_uses_every_slot_and_waits_beyond_that() -> None:
    [only] = lanes(Slots(4), 4)

    only.offer(*range(6))

    assert (only.running, len(only.lane.deliveries)) == (4, 2)


def test_a_free_slot_goes_to_the_lane_that_runs_least() -> None:
    busy, modest = lanes(Slots(4), 4, 4)
    busy.offer(*range(5))
    modest.offer(1, 2)

    busy.free()

    assert (busy.running, modest.running) == (2, 2)


def test_with_fewer_slots_than_lanes_the_bound_still_holds() -> None:
    slots = Slots(1)
    first, second = lanes(slots, 1, 1)
    first.offer()
    second.offer()

    assert slots.running == 1
    first.free()
    assert (first.running, second.running) == (0, 1)


def test_closing_starts_nothing_more_and_hands_back_what_waited() -> None:
    slots = Slots(1)
    [only] = lanes(slots, 1)
    only.offer(1, 2)

    waiting = only.lane.pause()
    slots.close()
    only.free()
    only.offer(3)

    assert [delivery.tag for delivery in waiting] == [2]
    assert (only.running, [delivery.tag for delivery in only.lane.deliveries]) == (0, [3])


def test_a_delivery_whose_channel_was_lost_while_it_waited_gets_no_slot() -> None:
    [only] = lanes(Slots(1), 1)
    only.offer(1)
    only.lane.offer(a_delivery(2, generation=0))
    only.offer(3)

    only.free()

    assert (only.tags, only.running) == ([1, 3], 1)


def test_a_slot_is_freed_once_however_often_it_is_asked_for() -> None:
    slots = Slots(2)
    [only] = lanes(slots, 2)
    only.offer(1, 2)
    [first, _] = only.slots

    with first, first:
        pass
    first.close()

    assert slots.running == 1


@given(
    st.integers(1, 8),
    st.lists(st.integers(1, 8), min_size=1, max_size=5),
    st.lists(st.tuples(st.booleans(), st.integers(0, 4)), max_size=200),
)
def test_whatever_arrives_and_ends_the_bounds_hold_and_nobody_waits_for_nothing(
    concurrency: int, limits: list[int], moves: list[tuple[bool, int]]
) -> None:
    slots = Slots(concurrency)
    made = lanes(slots, *limits)

    for arrives, number in moves:
        one = made[number % len(made)]
        if arrives:
            one.offer()
        elif one.running:
            one.free()
        assert slots.running == sum(other.running for other in made) <= concurrency
        assert all(other.running <= other.lane.limit for other in made)
        if slots.running == 0:
            assert not any(other.lane.deliveries for other in made)
        if len(made) <= concurrency:
            assert not any(other.lane.deliveries and other.running == 0 for other in made)


async def test_who_is_cancelled_while_waiting_to_be_alone_is_not_given_the_turn() -> None:
    [only] = lanes(Slots(4), 4)
    only.offer(1, 2, 3)
    _, leaving, staying = only.slots
    leaves, stays = (asyncio.create_task(slot.alone()) for slot in (leaving, staying))
    await asyncio.sleep(0)

    leaves.cancel()
    only.free()  # before the cancelled one had its turn of the loop

    await asyncio.wait_for(stays, 1)
    assert leaves.cancelled()


async def test_a_suspect_is_alone_until_its_slot_is_closed() -> None:
    [only] = lanes(Slots(4), 4)
    only.offer(1)
    [suspect] = only.slots
    await suspect.alone()

    with suspect:
        only.offer(2)
    ran_before_it_was_settled = list(only.tags)
    suspect.close()

    assert (ran_before_it_was_settled, only.tags) == ([1], [1, 2])


async def test_an_abandoned_handler_keeps_its_slot_and_no_suspect_waits_for_it() -> None:
    slots, handler = Slots(2), asyncio.get_running_loop().create_future()
    [only] = lanes(slots, 2)
    only.offer(1, 2, 3)
    stubborn, suspect = only.slots

    with stubborn:
        stubborn.abandon([handler])
    await asyncio.wait_for(suspect.alone(), 1)
    suspect.close()
    started_meanwhile = list(only.tags)
    handler.set_result(None)
    await asyncio.sleep(0)
    only.offer(4)

    assert (started_meanwhile, only.tags) == ([1, 2, 3], [1, 2, 3, 4])
