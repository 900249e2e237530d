"""The user of Redis that docs/permissions.md describes (tests/support/redises.py reads it there): each right it has is
needed, and that it lacks one is told. That it suffices for all shapes of Redis shows test_redis.py."""

from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from redises import ADMIN, ask, with_users
from running import a_worker, publish_all, running
from waiting import Facts

from holdfast import Context, Event, Settings
from holdfast.config import IdempotencySettings
from holdfast.idempotency import Acquired, Claim, StoreUnavailable
from holdfast.idempotency.redis import RedisClaims, RedisHeart
from holdfast.telemetry import Paused

OWNER, OTHER = b"worker-A", b"worker-B"


class Paid(Event, type="paid"):
    order: str


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IdempotencySettings]:
    with with_users(tmp_path_factory.mktemp("redis")) as (url, more):
        yield IdempotencySettings(url=url, **more)  # type: ignore[arg-type]


@pytest.fixture
def lacking(server: IdempotencySettings) -> Iterator["Lacking"]:
    lacking = Lacking(server)
    yield lacking
    lacking.give_back()


class Lacking:
    """Takes a right from the user, by the words of Redis' ACL."""

    def __init__(self, settings: IdempotencySettings) -> None:
        self.settings = settings
        self.url = str(settings.url and settings.url.get_secret_value())
        self._port = urlsplit(self.url).port or 0

    def take(self, right: str) -> None:
        ask(self._port, "script", "flush", cli=ADMIN)  # so that EVAL is needed again
        assert ask(self._port, "acl", "setuser", "shop", right, cli=ADMIN) == "OK\n"

    def give_back(self) -> None:
        assert ask(self._port, "acl", "load", cli=ADMIN) == "OK\n"


async def round_trip(settings: IdempotencySettings, url: str, key: str) -> None:
    """All that a worker asks of the store: heartbeats, a claim, one that somebody holds, a release, a completion."""
    store, heart = RedisClaims(url, settings), RedisHeart(url, settings)
    claim = Claim(f"holdfast:q:{key}", b"a" * 8, b"payload1", OWNER)
    rival = Claim(claim.key, b"b" * 8, claim.fingerprint, OTHER)
    try:
        heart.beat(OWNER, 30)
        assert await store.claim(claim) == Acquired()
        await store.claim(rival)
        await store.release(claim, forget=True)
        assert await store.claim(claim) == Acquired()
        await store.complete(claim)
    finally:
        await store.close()
        heart.stop(OWNER)


async def test_with_every_right_of_the_page_a_claim_is_taken_completed_and_released(
    lacking: "Lacking", unique: str
) -> None:
    await round_trip(lacking.settings, lacking.url, unique)


@pytest.mark.parametrize("right", ["eval", "evalsha", "get", "set", "del", "pttl"])
async def test_each_right_of_the_page_is_needed_and_a_line_says_so(lacking: "Lacking", unique: str, right: str) -> None:
    lacking.take(f"-{right}")

    with pytest.raises(StoreUnavailable, match=rf"Redis refused this user: .*; it needs .*\+{right} ") as refused:
        await round_trip(lacking.settings, lacking.url, unique)

    assert "\n" not in str(refused.value)


async def test_keys_beyond_the_prefix_are_out_of_reach(lacking: "Lacking", unique: str) -> None:
    store = RedisClaims(lacking.url, lacking.settings)

    with pytest.raises(StoreUnavailable, match="ermissions to access") as refused:
        await store.claim(Claim(f"billing:q:{unique}", b"a" * 8, b"payload1", OWNER))
    await store.close()

    assert "refused this user" in str(refused.value)


async def test_a_worker_whose_user_may_not_claim_pauses_until_it_may(lacking: "Lacking", settings: Settings) -> None:
    facts = Facts()
    worker = a_worker(settings.model_copy(update={"idempotency": lacking.settings}), facts)

    @worker.handler(Paid)
    async def handle(event: Paid, ctx: Context) -> None: ...

    async with running(worker):
        lacking.take("-evalsha")
        await publish_all(settings, [Paid(order="1")])
        [paused] = await facts.until(Paused)
        lacking.give_back()
        await facts.settled("handled")

    assert "Redis refused this user" in paused.error and "'evalsha'" in paused.error
