"""One timer for many things that have the same time each."""

import asyncio

import pytest

from holdfast.broker.countdown import Countdown, Limits


async def test_each_thing_is_due_in_its_turn_and_what_was_removed_never() -> None:
    due, last = list[str](), asyncio.Event()
    countdown = Countdown[str](0.05, lambda thing: (due.append(thing), thing == "c" and last.set())[0])

    for thing in ("a", "gone", "b", "c"):
        countdown.add(thing)
    countdown.remove("gone")
    await last.wait()

    assert due == ["a", "b", "c"]


async def test_a_block_over_its_limit_raises_time_out_and_the_task_goes_on() -> None:
    limits = Limits()

    with pytest.raises(TimeoutError), limits.limit(0.01):
        await asyncio.Event().wait()
    await asyncio.sleep(0)

    task = asyncio.current_task()
    assert task is not None and not task.cancelling()


async def test_a_block_within_its_limit_is_left_alone() -> None:
    limits, over = Limits(), asyncio.Event()
    asyncio.get_running_loop().call_later(0.05, over.set)

    with limits.limit(0.02):
        pass
    await over.wait()

    task = asyncio.current_task()
    assert task is not None and not task.cancelling()


async def test_a_cancellation_from_outside_is_no_time_out() -> None:
    limits, inside = Limits(), asyncio.Event()

    async def block() -> None:
        with limits.limit(30):
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(block())
    await inside.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
