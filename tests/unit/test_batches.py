"""Scripts of one turn of the loop travel together; each key has an answer of its own."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from redis.exceptions import NoScriptError, ResponseError

from holdfast.idempotency import StoreUnavailable
from holdfast.idempotency.redis.batches import Batches, Group
from holdfast.idempotency.redis.lua import Script

DOUBLE, HALVE = Script("double"), Script("halve")


class Server:
    """Answers each key, a number, with its double or half; withholds a batch until it may go on."""

    def __init__(self) -> None:
        self.batches: list[list[list[int]]] = []
        self.go = asyncio.Event()
        self.go.set()
        self.knows_scripts = True

    async def execute(self, groups: Sequence[Group], full: bool) -> list[Any]:
        self.batches.append([[int(key) for key in group.keys] for group in groups])
        await self.go.wait()
        return [self.answer(group) if full or self.knows_scripts else NoScriptError() for group in groups]

    def answer(self, group: Group) -> list[Any]:
        numbers = [int(key) for key in group.keys]
        return [ResponseError("13") if n == 13 else 2 * n if group.script is DOUBLE else n / 2 for n in numbers]


def double(batches: Batches, number: int) -> "asyncio.Future[Any]":
    return batches.ask(DOUBLE, str(number), ())


async def test_requests_of_one_turn_travel_together_and_those_that_come_meanwhile_next() -> None:
    server = Server()
    batches = Batches(server.execute)
    server.go.clear()

    first = [double(batches, n) for n in range(5)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    second = [double(batches, n) for n in range(5, 8)]
    server.go.set()
    answers = await asyncio.gather(*first, *second)

    assert server.batches == [[[0, 1, 2, 3, 4]], [[5, 6, 7]]]
    assert answers == [2 * n for n in range(8)]


async def test_scripts_are_grouped_but_those_of_one_key_keep_their_order() -> None:
    server = Server()
    batches = Batches(server.execute, together=3)

    asked = [(DOUBLE, 1), (HALVE, 2), (DOUBLE, 3), (HALVE, 1), (DOUBLE, 1), (DOUBLE, 4), (DOUBLE, 5), (DOUBLE, 6)]
    answers = await asyncio.gather(*(batches.ask(script, str(number), ()) for script, number in asked))

    assert server.batches == [[[1, 3], [2], [1], [1, 4, 5], [6]]]
    assert answers == [2, 1, 6, 0.5, 2, 8, 10, 12]


async def test_a_server_that_does_not_know_a_script_is_sent_it_in_full() -> None:
    server = Server()
    server.knows_scripts = False
    batches = Batches(server.execute)

    answers = await asyncio.gather(double(batches, 1), double(batches, 2))

    assert server.batches == [[[1, 2]], [[1, 2]]]
    assert answers == [2, 4]


async def test_one_failure_is_the_failure_of_one() -> None:
    batches = Batches(Server().execute)

    answers = await asyncio.gather(*(double(batches, n) for n in (12, 13, 14)), return_exceptions=True)

    assert (answers[0], answers[2]) == (24, 28)
    assert isinstance(answers[1], StoreUnavailable)


async def test_who_is_cancelled_takes_nobody_s_answer() -> None:
    batches = Batches(Server().execute)

    asked = [double(batches, n) for n in range(3)]
    asked[1].cancel()

    assert [await asked[0], await asked[2]] == [0, 4]


async def test_futures_that_wait_when_it_closes_raise() -> None:
    server = Server()
    server.go.clear()
    batches = Batches(server.execute)
    sent = double(batches, 1)
    await asyncio.sleep(0)
    waiting = double(batches, 2)

    await batches.close()

    for future in (sent, waiting):
        with pytest.raises(StoreUnavailable):
            await future
