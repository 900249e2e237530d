"""What every store of boards promises: one suite for memory and Redis."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from waiting import eventually

from holdfast.config import IdempotencySettings
from holdfast.idempotency import Board, Entry, MemoryClaims
from holdfast.idempotency.board import MOST, step
from holdfast.idempotency.redis import RedisClaims

ROOT = Entry("shop.charge", "e-1", "order.placed")
CHILD = Entry("mail.confirm", "e-2", "order.paid", at=1_800_000_000.5, cause=("shop.charge", "e-1"))


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.server)])
async def board(request: pytest.FixtureRequest, unique: str) -> AsyncIterator[Board]:
    if request.param == "memory":
        yield MemoryClaims(ttl=60, clock=time.monotonic).board
        return
    claims = RedisClaims(request.getfixturevalue("redis_url"), IdempotencySettings(prefix=unique))
    yield claims.board
    await claims.close()


def marked(entry: Entry, state: str, detail: str = "", at: float | None = None) -> Entry:
    return Entry(entry.queue, entry.event_id, entry.event_type, state, detail, at, entry.cause)  # type: ignore[arg-type]


async def states(board: Board) -> dict[str, str]:
    return {entry.event_id: entry.state for entry in await board.read("r")}


async def test_what_is_opened_is_read_as_it_was(board: Board) -> None:
    odd = Entry("shop.ünïcode", 'é"\\\0x', "order.placed", detail="2", at=0.25, cause=("q", "\0"))

    await board.open("r", [ROOT, CHILD, odd], cause=None, life=60)

    assert sorted(await board.read("r"), key=lambda entry: entry.queue) == [CHILD, ROOT, odd]
    assert await board.read("another") == []


async def test_a_cause_is_published_once_its_events_are_open(board: Board) -> None:
    await board.open("r", [ROOT], cause=None, life=60)

    await board.open("r", [CHILD], cause=ROOT.field, life=60)

    assert await states(board) == {"e-1": "published", "e-2": "open"}
    assert marked(ROOT, "published") in await board.read("r")


@pytest.mark.parametrize("old", [None, "open", "published", "retrying", "failed", "handled", "lost"])
@pytest.mark.parametrize("new", ["retrying", "failed", "handled", "lost", "completed", "published"])
async def test_a_step_leads_to_the_state_that_it_leads_to(board: Board, old: str | None, new: str) -> None:
    await board.open("r", [CHILD], cause=None, life=60)
    if old is not None:
        await board.open("r", [marked(ROOT, old)], cause=None, life=60)

    if new == "published":
        await board.open("r", [], cause=ROOT.field, life=60)
    else:
        await board.mark("r", marked(ROOT, new), life=60)

    expected = step(old, new) or old  # type: ignore[arg-type]
    assert (await states(board)).get("e-1") == expected


async def test_an_event_that_is_opened_again_keeps_its_state(board: Board) -> None:
    await board.open("r", [ROOT], cause=None, life=60)
    await board.mark("r", marked(ROOT, "handled"), life=60)

    await board.open("r", [ROOT], cause=None, life=60)

    assert await states(board) == {"e-1": "handled"}


async def test_an_event_that_failed_takes_off_what_it_opened_and_nobody_has_seen(board: Board) -> None:
    seen, another = Entry("q", "e-3", cause=CHILD.cause), Entry("q", "e-4", cause=("shop.charge", "e-10"))
    await board.open("r", [ROOT, another], cause=None, life=60)
    await board.open("r", [CHILD, seen], cause=ROOT.field, life=60)
    await board.mark("r", marked(seen, "retrying", "2"), life=60)

    await board.mark("r", marked(ROOT, "failed", "exhausted"), life=60)

    assert await states(board) == {"e-1": "failed", "e-3": "retrying", "e-4": "open"}


async def test_a_board_that_is_not_there_is_made_by_the_first_event_alone(board: Board) -> None:
    await board.open("r", [CHILD], cause=ROOT.field, life=60)
    await board.mark("r", marked(ROOT, "handled"), life=60)

    assert await board.read("r") == []


async def test_a_board_lives_as_long_as_the_longest_wait_on_it(board: Board) -> None:
    await board.open("r", [ROOT], cause=None, life=60)
    await board.mark("r", marked(ROOT, "retrying"), life=0.05)
    await board.open("brief", [ROOT], cause=None, life=0.05)

    async def is_over() -> bool:
        return await board.read("brief") == []

    await eventually(is_over)
    assert await states(board) == {"e-1": "retrying"}


async def test_a_board_that_would_be_too_large_is_lost_and_says_so(board: Board) -> None:
    await board.open("r", [Entry("q", str(n)) for n in range(MOST)], cause=None, life=60)

    await board.open("r", [ROOT], cause=None, life=60)

    entries = await board.read("r")
    assert (len(entries), [entry for entry in entries if entry.state == "lost"]) == (
        MOST + 1,
        [Entry("", "", "", "lost")],
    )


async def test_a_queue_is_taken_off_one_board_or_off_the_listeners(board: Board) -> None:
    await board.open("r", [ROOT, CHILD], cause=None, life=60)
    await asyncio.gather(board.announce("q", "[1]"), board.announce("q2", "[2]"))
    await board.announce("q2", "[3]")

    await board.forget("r", CHILD.queue)
    await board.forget(None, "q")

    assert await states(board) == {"e-1": "open"}
    assert await board.listeners() == {"q2": "[3]"}
