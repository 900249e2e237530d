"""Many questions, a few at a time."""

import asyncio

import pytest

from holdfast.dead_letters.queues import several

NAMES = [f"q{n}" for n in range(8)]


async def test_as_many_are_asked_at_a_time_as_may_be_and_no_more() -> None:
    asked, now = list[str](), 0
    together = asyncio.Barrier(4)

    async def ask(name: str) -> bool:
        nonlocal now
        asked.append(name)
        now += 1
        async with asyncio.timeout(20):
            await together.wait()  # passes when four are asked
        now -= 1
        return now < 4

    answers = await several(ask, NAMES, at_a_time=4)

    assert answers == dict.fromkeys(NAMES, True)
    assert asked == NAMES


async def test_the_first_that_fails_ends_the_others() -> None:
    ended: list[str] = []

    async def ask(name: str) -> None:
        if name == "q3":
            raise LookupError(name)
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(name)

    with pytest.raises(LookupError, match="q3"):
        await several(ask, NAMES, at_a_time=4)

    assert ended == ["q0", "q1", "q2"]


async def test_of_nothing_nothing_is_asked() -> None:
    assert await several(lambda name: asyncio.sleep(0), [], at_a_time=4) == {}
