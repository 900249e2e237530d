"""Slots: bounded for the process and for each lane, and no lane starves another."""

import asyncio
from typing import Any

from builders import a_message
from hypothesis import given
from hypothesis import strategies as st

from holdfast.broker import Delivery
from holdfast.consumer.scheduler import Lane, Scheduler


def a_delivery(tag: int = 1) -> Delivery:
    consumer: Any = None
    return Delivery(a_message(), "q", tag, 1, False, consumer)


def lanes(scheduler: Scheduler, *limits: int) -> list[Lane]:
    made = [Lane(f"q{n}", limit, lambda delivery: None) for n, limit in enumerate(limits)]
    for lane in made:
        scheduler.add(lane)
    return made


def test_a_lane_that_hangs_leaves_a_slot_to_every_other_lane() -> None:
    scheduler = Scheduler(4)
    hanging, second, third = lanes(scheduler, 4, 4, 4)

    for tag in range(20):
        scheduler.offer(hanging, a_delivery(tag))
    scheduler.offer(second, a_delivery())
    scheduler.offer(third, a_delivery())

    assert (hanging.running, second.running, third.running) == (2, 1, 1)


def test_one_lane_alone_uses_every_slot_and_waits_beyond_that() -> None:
    scheduler = Scheduler(4)
    [lane] = lanes(scheduler, 4)

    for tag in range(6):
        scheduler.offer(lane, a_delivery(tag))

    assert (lane.running, len(lane.inbox)) == (4, 2)


def test_a_free_slot_goes_to_the_lane_that_runs_least() -> None:
    scheduler = Scheduler(4)
    busy, modest = lanes(scheduler, 4, 4)
    for tag in range(5):
        scheduler.offer(busy, a_delivery(tag))
    scheduler.offer(modest, a_delivery())
    scheduler.offer(modest, a_delivery())

    scheduler.release(busy)

    assert (busy.running, modest.running) == (2, 2)


def test_with_fewer_slots_than_lanes_the_bound_still_holds() -> None:
    scheduler = Scheduler(1)
    first, second = lanes(scheduler, 1, 1)
    scheduler.offer(first, a_delivery())
    scheduler.offer(second, a_delivery())

    assert scheduler.running == 1
    scheduler.release(first)
    assert (first.running, second.running) == (0, 1)


def test_closing_starts_nothing_more_and_hands_back_what_waited() -> None:
    scheduler = Scheduler(1)
    [lane] = lanes(scheduler, 1)
    scheduler.offer(lane, a_delivery(1))
    scheduler.offer(lane, a_delivery(2))

    waiting = scheduler.pause(lane)
    scheduler.close()
    scheduler.release(lane)
    scheduler.offer(lane, a_delivery(3))

    assert [delivery.tag for delivery in waiting] == [2]
    assert (lane.running, [delivery.tag for delivery in lane.inbox]) == (0, [3])


@given(
    st.integers(1, 8),
    st.lists(st.integers(1, 8), min_size=1, max_size=5),
    st.lists(st.tuples(st.booleans(), st.integers(0, 4)), max_size=200),
)
def test_whatever_arrives_and_ends_the_bounds_hold_and_nobody_waits_for_nothing(
    concurrency: int, limits: list[int], moves: list[tuple[bool, int]]
) -> None:
    scheduler = Scheduler(concurrency)
    made = lanes(scheduler, *limits)

    for arrives, number in moves:
        lane = made[number % len(made)]
        if arrives:
            scheduler.offer(lane, a_delivery())
        elif lane.running:
            scheduler.release(lane)
        assert scheduler.running == sum(other.running for other in made) <= concurrency
        assert all(other.running <= other.limit for other in made)
        if scheduler.running == 0:
            assert not any(other.inbox for other in made)
        if len(made) <= concurrency:
            assert not any(other.inbox and other.running == 0 for other in made)


async def test_who_is_cancelled_while_waiting_to_be_alone_is_not_given_the_turn() -> None:
    scheduler = Scheduler(4)
    [lane] = lanes(scheduler, 4)
    for tag in range(3):
        scheduler.offer(lane, a_delivery(tag))
    leaves, stays = (asyncio.create_task(scheduler.be_alone()) for _ in range(2))
    await asyncio.sleep(0)

    leaves.cancel()
    scheduler.release(lane)  # before the cancelled one had its turn of the loop

    await asyncio.wait_for(stays, 1)
    assert leaves.cancelled()
