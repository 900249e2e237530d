"""What every claim store promises: one suite for memory and Redis."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from waiting import eventually

from holdfast.config import IdempotencySettings
from holdfast.idempotency import Acquired, Busy, Claim, Done, Entry, Heart, MemoryClaims, Mismatch, Step, Suspect
from holdfast.idempotency.redis import RedisClaims, RedisHeart

A, B = b"worker-A", b"worker-B"


class SharedStore:
    """A store with its boards, and two workers who are alive in it."""

    def __init__(self, store: MemoryClaims | RedisClaims, heart: Heart, key: str) -> None:
        self.store = store
        self.heart = heart
        self.key = key

    def claim(self, owner: bytes = A, *, payload: bytes = b"payload1", key: str = "") -> Claim:
        return Claim(f"{self.key}{key}", secrets.token_bytes(8), payload, owner)

    async def beat(self, owner: bytes, seconds: float = 60.0) -> bool:
        return await asyncio.to_thread(self.heart.beat, owner, seconds)

    async def die(self, owner: bytes) -> None:
        await asyncio.to_thread(self.heart.stop, owner)


def _shared_store(kind: str, request: pytest.FixtureRequest, unique: str, ttl: float) -> SharedStore:
    if kind == "memory":
        memory = MemoryClaims(ttl=ttl, clock=time.monotonic)
        return SharedStore(memory, memory, unique)
    url = request.getfixturevalue("redis_url")
    settings = IdempotencySettings(ttl=ttl, prefix=unique)
    return SharedStore(RedisClaims(url, settings), RedisHeart(url, settings), f"{unique}:scope:")


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.server)])
async def shared(request: pytest.FixtureRequest, unique: str) -> AsyncIterator[SharedStore]:
    shared = _shared_store(request.param, request, unique, ttl=60)
    await shared.beat(A)
    await shared.beat(B)
    yield shared
    await shared.store.close()


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.server)])
async def brief(request: pytest.FixtureRequest, unique: str) -> AsyncIterator[SharedStore]:
    """A store whose window is short."""
    shared = _shared_store(request.param, request, unique, ttl=0.3)
    await shared.beat(A)
    yield shared
    await shared.store.close()


async def test_the_first_claim_is_acquired_and_the_next_finds_it_busy(shared: SharedStore) -> None:
    first, second = shared.claim(A), shared.claim(B)

    answers = [await shared.store.claim(first), await shared.store.claim(second)]

    assert answers[0] == Acquired()
    assert isinstance(answers[1], Busy)
    assert 50 < answers[1].seconds <= 60


async def test_a_claim_sent_twice_is_not_its_own_duplicate(shared: SharedStore) -> None:
    claim = shared.claim()

    answers = [await shared.store.claim(claim), await shared.store.claim(claim)]

    assert answers == [Acquired(), Acquired()]


async def test_what_completed_is_done_for_everybody(shared: SharedStore) -> None:
    claim = shared.claim()
    await shared.store.claim(claim)

    completions = [await shared.store.complete(claim), await shared.store.complete(claim)]

    assert completions == ["recorded", "recorded"]
    assert await shared.store.claim(shared.claim(B)) == Done()


async def test_what_was_released_is_claimed_as_if_for_the_first_time(shared: SharedStore) -> None:
    claim = shared.claim()
    await shared.store.claim(claim)

    await shared.store.release(claim)
    await shared.store.release(claim)

    assert await shared.store.claim(shared.claim(B)) == Acquired()


async def test_another_payload_under_the_same_key_is_told_at_every_stage(shared: SharedStore) -> None:
    claim, other = shared.claim(), shared.claim(B, payload=b"payload2")
    await shared.store.claim(claim)

    running = await shared.store.claim(other)
    await shared.store.complete(claim)
    done = await shared.store.claim(other)

    assert (running, done) == (Mismatch(), Mismatch())


async def test_the_claim_of_a_dead_worker_is_a_suspect_that_runs_alone(shared: SharedStore) -> None:
    await shared.store.claim(shared.claim(A))
    await shared.die(A)

    beside_others = await shared.store.claim(shared.claim(B))
    alone = await shared.store.claim(shared.claim(B), alone=True)

    assert (beside_others, alone) == (Suspect(1), Acquired(1))


async def test_crashes_are_counted_until_there_were_too_many(shared: SharedStore) -> None:
    await shared.store.claim(shared.claim(A))
    await shared.die(A)
    await shared.store.claim(shared.claim(B), alone=True)
    await shared.die(B)
    await shared.beat(A)

    one_more_run = await shared.store.claim(shared.claim(A), max_crashes=3)
    no_more_run = await shared.store.claim(shared.claim(A), max_crashes=2)

    assert (one_more_run, no_more_run) == (Suspect(2), Acquired(2))


async def test_a_release_remembers_crashes_unless_it_is_told_to_forget(shared: SharedStore) -> None:
    await shared.store.claim(shared.claim(A))
    await shared.die(A)
    second = shared.claim(B)
    await shared.store.claim(second, alone=True)

    await shared.store.release(second)
    remembered = await shared.store.claim(third := shared.claim(B), alone=True)
    await shared.store.release(third, forget=True)
    forgotten = await shared.store.claim(shared.claim(B))

    assert (remembered, forgotten) == (Acquired(1), Acquired())


async def test_a_late_owner_is_fenced(shared: SharedStore) -> None:
    late, heir = shared.claim(A), shared.claim(B)
    await shared.store.claim(late)
    await shared.die(A)
    await shared.store.claim(heir, alone=True)

    await shared.store.release(late)
    while_running = await shared.store.complete(late)
    still_the_heirs = await shared.store.claim(heir)
    by_the_heir = await shared.store.complete(heir)
    afterwards = await shared.store.complete(late)

    assert (while_running, still_the_heirs, by_the_heir, afterwards) == ("fenced", Acquired(1), "recorded", "fenced")


async def test_a_late_owner_whose_event_nobody_took_over_may_still_complete(shared: SharedStore) -> None:
    late = shared.claim(A)
    await shared.store.claim(late)
    await shared.die(A)
    await shared.store.claim(shared.claim(B))

    assert await shared.store.complete(late) == "recorded"
    assert await shared.store.claim(shared.claim(B)) == Done()


async def test_a_completion_the_store_had_lost_the_claim_of_is_recorded_and_told(shared: SharedStore) -> None:
    claim = shared.claim()

    completion = await shared.store.complete(claim)

    assert completion == "absent"
    assert await shared.store.claim(shared.claim(B)) == Done()


async def test_a_release_of_what_completed_changes_nothing(shared: SharedStore) -> None:
    claim = shared.claim()
    await shared.store.claim(claim)
    await shared.store.complete(claim)

    await shared.store.release(claim, forget=True)

    assert await shared.store.claim(shared.claim(B)) == Done()


async def test_a_heart_says_whether_its_last_beat_was_still_there(shared: SharedStore) -> None:
    again = await shared.beat(A)
    await shared.die(A)
    after_death = await shared.beat(A)

    assert (again, after_death) == (True, False)


async def test_a_worker_whose_heart_stands_still_is_dead_by_itself(shared: SharedStore) -> None:
    await shared.beat(A, 0.2)
    await shared.store.claim(shared.claim(A))

    async def answer() -> Any:
        return await shared.store.claim(shared.claim(B))

    assert isinstance(await answer(), Busy)
    await eventually(answer, Suspect(1))


async def test_what_completed_is_forgotten_after_the_window(brief: SharedStore) -> None:
    claim = brief.claim()
    await brief.store.claim(claim)
    await brief.store.complete(claim)

    async def answer() -> Any:
        return await brief.store.claim(brief.claim())

    assert await answer() == Done()
    await eventually(answer, Acquired())


async def test_of_a_hundred_claims_at_once_one_is_acquired(shared: SharedStore) -> None:
    claims = [shared.claim(A if n % 2 else B) for n in range(100)]

    answers = await asyncio.gather(*map(shared.store.claim, claims))

    assert sorted(type(answer).__name__ for answer in answers) == ["Acquired"] + ["Busy"] * 99


async def test_claims_of_many_events_at_once_are_each_answered_their_own(shared: SharedStore) -> None:
    done = [shared.claim(key=str(n)) for n in range(0, 200, 2)]
    await asyncio.gather(*map(shared.store.claim, done))
    await asyncio.gather(*map(shared.store.complete, done))

    answers = await asyncio.gather(*(shared.store.claim(shared.claim(B, key=str(n))) for n in range(200)))

    assert answers == [Done() if n % 2 == 0 else Acquired() for n in range(200)]


async def test_a_cancelled_question_leaves_its_answer_to_nobody(shared: SharedStore) -> None:
    await shared.store.claim(taken := shared.claim(key="taken"))
    asking = asyncio.create_task(shared.store.claim(shared.claim(B, key="taken")))
    others = [asyncio.create_task(shared.store.claim(shared.claim(B, key=str(n)))) for n in range(20)]

    await asyncio.sleep(0)
    asking.cancel()
    answers = await asyncio.gather(*others)

    assert answers == [Acquired()] * 20
    assert await shared.store.complete(taken) == "recorded"


@pytest.mark.parametrize(
    ("old", "new", "then"),
    [
        ("open", "handled", "handled"),
        ("open", "completed", "lost"),
        ("published", "completed", "handled"),
        ("handled", "lost", "handled"),
    ],
)
async def test_an_entry_takes_its_step_with_the_completion(
    shared: SharedStore, old: Step, new: Step, then: Step
) -> None:
    claim = shared.claim()
    await shared.store.claim(claim)
    await shared.store.board.open("r", [Entry("q", "e-1", "paid", old)], cause=None, life=60)

    completions = [await shared.store.complete(claim, ("r", Entry("q", "e-1", "paid", new))) for _ in range(2)]

    assert shared.store.board.is_beside_claims
    assert completions == ["recorded", "recorded"]
    assert await shared.store.board.read("r") == [Entry("q", "e-1", "paid", then)]


async def test_a_completion_that_is_fenced_marks_nothing(shared: SharedStore) -> None:
    late, heir, entry = shared.claim(A), shared.claim(B), Entry("q", "e-1", "paid")
    await shared.store.claim(late)
    await shared.die(A)
    await shared.store.claim(heir, alone=True)
    await shared.store.board.open("r", [entry], cause=None, life=60)

    completion = await shared.store.complete(late, ("r", Entry("q", "e-1", "paid", "handled")))

    assert completion == "fenced"
    assert await shared.store.board.read("r") == [entry]


async def test_a_completion_of_a_request_that_is_on_no_board_makes_none(shared: SharedStore) -> None:
    claim = shared.claim()
    await shared.store.claim(claim)

    completion = await shared.store.complete(claim, ("r", Entry("q", "e-1", "paid", "handled")))

    assert completion == "recorded"
    assert await shared.store.board.read("r") == []
