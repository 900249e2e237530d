"""The watchdog: each blockage is told once, with the code and the task that block the loop."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable

import pytest
from waiting import Arrivals

from holdfast.telemetry import Fact, LoopBlocked, LoopTurned, Watchdog


class Told:
    """What the watchdog said, and a way for a thread that blocks the loop to wait for it."""

    def __init__(self) -> None:
        self.facts: list[LoopBlocked] = []
        self.thread = ""
        self._more = threading.Semaphore(0)

    def __call__(self, fact: Fact) -> None:
        if isinstance(fact, LoopTurned):
            return
        assert isinstance(fact, LoopBlocked)
        self.facts.append(fact)
        self.thread = threading.current_thread().name
        self._more.release()

    def stand_still_until_it_is_noticed(self) -> None:
        assert self._more.acquire(timeout=20)

    def stand_still_and_hear_nothing_more(self) -> None:
        assert not self._more.acquire(timeout=0.3)


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
async def watchdog(told: Told) -> AsyncIterator[Watchdog]:
    watchdog = Watchdog(0.1, told)
    watchdog.start(asyncio.get_running_loop())
    yield watchdog
    watchdog.stop()


async def the_loop_turns(times: int) -> None:
    """Until the loop's own timers have fired: the watchdog's beat is one of them."""
    for _ in range(times):
        turned: Arrivals[None] = Arrivals()
        asyncio.get_running_loop().call_later(0.03, turned, None)
        await turned.next()


async def test_while_the_loop_turns_its_lag_is_told_and_it_never_stands_still() -> None:
    heard: Arrivals[Fact] = Arrivals()
    watchdog = Watchdog(10, heard)
    still_before = watchdog.still()

    watchdog.start(asyncio.get_running_loop())
    turned = await heard.take(2)
    still = watchdog.still()
    watchdog.stop()

    assert all(isinstance(fact, LoopTurned) and 0 <= fact.lag < 5 for fact in turned)
    assert still < 5
    assert (still_before, watchdog.still()) == (0, 0)


async def test_a_blocked_loop_is_told_with_seconds_task_and_stack(told: Told, watchdog: Watchdog) -> None:
    async def charge() -> None:
        told.stand_still_until_it_is_noticed()

    await asyncio.create_task(charge(), name="billing.charge e-1")

    [fact] = told.facts
    assert fact.seconds >= 0.1
    assert fact.task == "billing.charge e-1"
    assert "in charge" in fact.stack and "stand_still_until_it_is_noticed" in fact.stack


async def test_it_is_told_which_event_the_blocking_task_handles(told: Told) -> None:
    task = asyncio.current_task()
    watchdog = Watchdog(0.1, told, lambda of: {"handler": "charge", "event_id": "e-1"} if of is task else {})
    watchdog.start(asyncio.get_running_loop())
    told.stand_still_until_it_is_noticed()
    watchdog.stop()

    assert (told.facts[0].handler, told.facts[0].event_id) == ("charge", "e-1")


async def test_it_is_told_from_a_thread_of_its_own(told: Told, watchdog: Watchdog) -> None:
    told.stand_still_until_it_is_noticed()

    assert told.thread == "holdfast-watchdog"


async def test_one_blockage_is_told_once_and_the_next_one_again(told: Told, watchdog: Watchdog) -> None:
    told.stand_still_until_it_is_noticed()
    told.stand_still_and_hear_nothing_more()
    await the_loop_turns(3)
    after_the_first = len(told.facts)
    told.stand_still_until_it_is_noticed()

    assert (after_the_first, len(told.facts)) == (1, 2)


async def test_a_loop_that_turns_is_not_told_of(told: Told, watchdog: Watchdog) -> None:
    await the_loop_turns(10)

    assert told.facts == []


async def test_a_stopped_watchdog_leaves_no_thread_behind(told: Told) -> None:
    before = threading.enumerate()  # among them that of an earlier test, which may still be about to end
    watchdog = Watchdog(0.1, told)
    watchdog.start(asyncio.get_running_loop())
    [thread] = [thread for thread in threading.enumerate() if thread not in before]

    watchdog.stop()

    await asyncio.to_thread(thread.join, 20)
    assert not thread.is_alive()


def test_a_block_without_a_task_says_so(told: Told) -> None:
    def callback(stand_still: Callable[[], None]) -> None:
        stand_still()

    async def main() -> None:
        watchdog = Watchdog(0.1, told)
        watchdog.start(asyncio.get_running_loop())
        asyncio.get_running_loop().call_soon(callback, told.stand_still_until_it_is_noticed)
        await the_loop_turns(1)
        watchdog.stop()

    asyncio.run(main())

    assert told.facts[0].task == "no task"
    assert "in callback" in told.facts[0].stack
