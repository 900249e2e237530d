"""Questions of one turn of the loop travel together; each has its own answer."""

import asyncio
from collections.abc import Sequence

import pytest

from holdfast.idempotency import StoreUnavailable
from holdfast.idempotency.batch import Batches


class Server:
    """Answers each number with its double; withholds a batch until it may go on."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.go = asyncio.Event()
        self.go.set()

    async def send(self, questions: Sequence[int]) -> Sequence[int | StoreUnavailable]:
        self.batches.append(list(questions))
        await self.go.wait()
        return [StoreUnavailable("13") if number == 13 else 2 * number for number in questions]


async def test_requests_of_one_turn_travel_together_and_those_that_come_meanwhile_next() -> None:
    server = Server()
    batches: Batches[int, int] = Batches(server.send)
    server.go.clear()

    first = [batches.ask(n) for n in range(5)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    second = [batches.ask(n) for n in range(5, 8)]
    server.go.set()
    answers = await asyncio.gather(*first, *second)

    assert server.batches == [[0, 1, 2, 3, 4], [5, 6, 7]]
    assert answers == [2 * n for n in range(8)]


async def test_one_failure_is_the_failure_of_one() -> None:
    batches: Batches[int, int] = Batches(Server().send)

    answers = await asyncio.gather(*(batches.ask(n) for n in (12, 13, 14)), return_exceptions=True)

    assert (answers[0], answers[2]) == (24, 28)
    assert isinstance(answers[1], StoreUnavailable)


async def test_who_is_cancelled_takes_nobody_s_answer() -> None:
    batches: Batches[int, int] = Batches(Server().send)

    asked = [batches.ask(n) for n in range(3)]
    asked[1].cancel()

    assert [await asked[0], await asked[2]] == [0, 4]


async def test_who_waits_when_it_closes_is_told() -> None:
    server = Server()
    server.go.clear()
    batches: Batches[int, int] = Batches(server.send)
    sent = batches.ask(1)
    await asyncio.sleep(0)
    waiting = batches.ask(2)

    await batches.close()

    for future in (sent, waiting):
        with pytest.raises(StoreUnavailable):
            await future
