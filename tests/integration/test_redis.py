"""The Redis store, in every shape of Redis, and between a client and a server that misbehave."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import redis.asyncio
from proxy import Direction, proxy_to
from redises import a_redis, ask, with_cluster, with_sentinel, with_tls, with_users
from waiting import Facts, eventually

from holdfast import ConfigurationError
from holdfast.config import IdempotencySettings
from holdfast.idempotency import Acquired, Busy, Claim, Done, Entry, Lease, StoreUnavailable, Suspect
from holdfast.idempotency.keys import board_key
from holdfast.idempotency.redis import RedisClaims, RedisHeart
from holdfast.telemetry import LeaseTaken
from holdfast.testing.servers import free_port

Shape = Callable[[Path], AbstractContextManager[tuple[str, dict[str, str]]]]
A, B = b"worker-A", b"worker-B"


def a_claim(key: str, owner: bytes = A) -> Claim:
    return Claim(f"holdfast:q:{key}", secrets.token_bytes(8), b"payload1", owner)


@pytest.mark.parametrize("shape", [with_tls, with_users, with_sentinel, with_cluster], ids=lambda shape: shape.__name__)
async def test_claims_are_kept_in_every_shape_of_redis(shape: Shape, tmp_path: Path) -> None:
    with shape(tmp_path) as (url, more):
        settings = IdempotencySettings(url=url, **more)  # type: ignore[arg-type]
        store, heart = RedisClaims(url, settings), RedisHeart(url, settings)
        try:
            await asyncio.to_thread(heart.beat, A, 30)
            findings = await store.findings()
            keys = [str(n) for n in range(30)]  # on every node of a cluster
            first = await asyncio.gather(*(store.claim(a_claim(key)) for key in keys))
            second = await asyncio.gather(*(store.claim(a_claim(key, B)) for key in keys))
            claim = a_claim("done")
            ended = [await store.claim(claim), await store.complete(claim), await store.claim(a_claim("done", B))]
            await asyncio.to_thread(heart.stop, A)
            third = await asyncio.gather(*(store.claim(a_claim(key, B)) for key in keys))
        finally:
            await store.close()

    assert findings == []
    assert first == [Acquired()] * 30
    assert {type(answer) for answer in second} == {Busy}
    assert ended == [Acquired(), "recorded", Done()]
    assert third == [Suspect(1)] * 30
    assert store.board.is_beside_claims == (shape is not with_cluster)


async def test_who_is_alive_stays_so_when_memory_runs_out(tmp_path: Path) -> None:
    with a_redis(tmp_path) as port:
        settings = IdempotencySettings(url=f"redis://127.0.0.1:{port}/0")  # type: ignore[arg-type]
        store, heart = (kind(f"redis://127.0.0.1:{port}/0", settings) for kind in (RedisClaims, RedisHeart))
        claim = a_claim("a")
        try:
            was_there = [await asyncio.to_thread(heart.beat, A, 30)]
            await store.claim(claim)
            ask(port, "config", "set", "maxmemory", "1")
            was_there += [await asyncio.to_thread(heart.beat, who, 60) for who in (A, B)]
            with pytest.raises(StoreUnavailable, match="out of memory"):
                await store.claim(a_claim("b"))
            left = await store._life_of(A)
            completion = await store.complete(claim)
        finally:
            await asyncio.to_thread(heart.stop, A)
            await store.close()

    assert was_there == [False, True, False]
    assert left > 30
    assert completion == "recorded"


async def test_a_certificate_nobody_vouches_for_is_refused(tmp_path: Path) -> None:
    with with_tls(tmp_path) as (url, files):
        settings = IdempotencySettings(url=url, cert_file=files["cert_file"], key_file=files["key_file"])  # type: ignore[arg-type]
        store = RedisClaims(url, settings)

        with pytest.raises(
            StoreUnavailable, match=r"certificate is not valid: self-signed certificate in certificate chain; .*CA_FILE"
        ):
            await store.claim(a_claim("1"))
        await store.close()


async def test_a_wrong_password_is_told_in_one_line(tmp_path: Path) -> None:
    with with_users(tmp_path) as (url, _):
        store = RedisClaims(url, IdempotencySettings(url=url, password="wrong"))  # type: ignore[arg-type]

        with pytest.raises(ConfigurationError, match="HOLDFAST_IDEMPOTENCY__URL: Redis refused the login") as refused:
            await store.findings()
        await store.close()

    assert "\n" not in str(refused.value)


async def test_a_file_with_an_address_without_a_password_is_no_login(
    redis_url: str, unique: str, tmp_path: Path
) -> None:
    (tmp_path / "url").write_text(redis_url)
    store = RedisClaims(redis_url, IdempotencySettings(url_file=tmp_path / "url"))

    answer = await store.claim(a_claim(unique))
    await store.close()

    assert answer == Acquired()


async def test_a_key_takes_between_181_and_240_bytes(redis_url: str) -> None:
    store = RedisClaims(redis_url, IdempotencySettings())
    claim = Claim(f"holdfast:billing.charge:{secrets.token_urlsafe(16)}", secrets.token_bytes(8), b"payload1", A)
    async with redis.asyncio.from_url(redis_url) as server:
        await store.claim(claim)
        running = await server.memory_usage(claim.key)
        await store.complete(claim)
        done = await server.memory_usage(claim.key)
    await store.close()

    assert running is not None
    assert done is not None
    assert max(running, done) <= 240, (running, done)


async def test_scripts_a_server_forgot_are_sent_again(redis_url: str, unique: str) -> None:
    store = RedisClaims(redis_url, IdempotencySettings())
    async with redis.asyncio.from_url(redis_url) as server:
        await store.claim(a_claim(unique))
        await server.script_flush()

        answers = await asyncio.gather(*(store.claim(a_claim(f"{unique}{n}")) for n in range(50)))
    await store.close()

    assert answers == [Acquired()] * 50


async def test_a_completion_stands_where_its_mark_cannot_be_written(redis_url: str, unique: str) -> None:
    """As with a user who may not write hashes: following endangers no claim."""
    store = RedisClaims(redis_url, IdempotencySettings(prefix=unique))
    claim = a_claim(f"{unique}:done")
    with redis.Redis.from_url(redis_url) as client:
        client.set(board_key(unique, "r"), "no hash")
    try:
        await store.claim(claim)
        completion = await store.complete(claim, ("r", Entry("q", "e-1", "paid", "handled")))
    finally:
        await store.close()

    assert completion == "recorded"


async def test_of_a_batch_that_fails_in_part_each_entry_has_its_own_answer(redis_url: str, unique: str) -> None:
    store = RedisClaims(redis_url, IdempotencySettings())
    async with redis.asyncio.from_url(redis_url) as server:
        await server.lpush(f"holdfast:q:{unique}5", "somebody else's")

        asked = (store.claim(a_claim(f"{unique}{n}")) for n in range(10))
        answers = await asyncio.gather(*asked, return_exceptions=True)
    await store.close()

    assert isinstance(answers.pop(5), StoreUnavailable)
    assert answers == [Acquired()] * 9


async def test_a_batch_sent_into_a_failover_is_answered_by_the_new_master(tmp_path: Path) -> None:
    with a_redis(tmp_path) as master, a_redis(tmp_path, "--replicaof", f"127.0.0.1 {master}") as replica:
        config = tmp_path / "sentinel.conf"
        config.write_text(
            f"sentinel monitor orders 127.0.0.1 {master} 1\nsentinel down-after-milliseconds orders 500\n"
        )
        with a_redis(tmp_path, str(config), "--sentinel") as sentinel:
            url = f"redis+sentinel://127.0.0.1:{sentinel}/orders"
            store = RedisClaims(url, IdempotencySettings(timeout=0.5))
            before = await store.claim(a_claim("before"))
            await eventually(lambda: asyncio.to_thread(ask, replica, "dbsize"), "1\n")
            await eventually(lambda: _has_replica(sentinel), True)
            await asyncio.to_thread(ask, sentinel, "sentinel", "failover", "orders")

            async def claims_again() -> bool:
                asked = [store.claim(a_claim(f"after-{secrets.token_hex(4)}")) for _ in range(20)]
                answers = await asyncio.gather(*asked, return_exceptions=True)
                assert all(answer == Acquired() or isinstance(answer, StoreUnavailable) for answer in answers)
                return "role:master" in await asyncio.to_thread(ask, replica, "info", "replication") and all(
                    answer == Acquired() for answer in answers
                )

            await eventually(claims_again, True)
            after = await store.claim(a_claim("before", B))
            await store.close()

    assert before == Acquired()
    assert isinstance(after, Suspect)  # A has no heartbeat here; what matters is that the claim survived


async def _has_replica(sentinel: int) -> bool:
    return "num-slaves\n1" in await asyncio.to_thread(ask, sentinel, "sentinel", "master", "orders")


@pytest.mark.parametrize("ask_first", [RedisClaims.claim, RedisClaims.complete], ids=lambda step: step.__name__)
async def test_an_address_that_leads_to_another_server_is_followed_there(
    ask_first: Callable[[RedisClaims, Claim], Awaitable[object]], tmp_path: Path
) -> None:
    """The first server is demoted, and keeps its connections: claims are refused key by key, completions at once."""
    with a_redis(tmp_path) as old, a_redis(tmp_path) as new:
        async with proxy_to(f"redis://127.0.0.1:{old}/0") as proxy:
            url = proxy.url("redis:///0")
            store, heart = (kind(url, IdempotencySettings()) for kind in (RedisClaims, RedisHeart))
            try:
                await asyncio.gather(store.claim(a_claim("before")), asyncio.to_thread(heart.beat, A, 30))
                proxy.lead_to(new)
                await asyncio.to_thread(ask, old, "replicaof", "127.0.0.1", str(new))

                with pytest.raises(StoreUnavailable):
                    await ask_first(store, a_claim("refused"))
                with pytest.raises(StoreUnavailable):
                    await asyncio.to_thread(heart.beat, A, 30)
                answer = await store.claim(a_claim("after"))
                await asyncio.to_thread(heart.beat, A, 30)
            finally:
                await store.close()
            keys = await asyncio.to_thread(ask, new, "dbsize")

    assert answer == Acquired()
    assert keys == "2\n"


async def test_a_cancelled_call_leaves_its_reply_to_nobody(redis_url: str, unique: str) -> None:
    async with proxy_to(redis_url) as proxy:
        url = proxy.url(redis_url)
        store = RedisClaims(url, IdempotencySettings(timeout=5))
        await store.claim(taken := a_claim(f"{unique}taken"))
        await store.complete(taken)
        proxy.swallow(Direction.TO_CLIENT)
        cancelled = asyncio.create_task(store.claim(a_claim(f"{unique}taken")))
        await proxy.until_withheld(Direction.TO_CLIENT)
        others = [asyncio.create_task(store.claim(a_claim(f"{unique}{n}"))) for n in range(20)]
        cancelled.cancel()
        proxy.resume()

        answers = await asyncio.gather(*others)
        await store.close()

    assert answers == [Acquired()] * 20


async def test_a_lost_reply_is_asked_for_again_and_the_claim_is_not_its_own_duplicate(
    redis_url: str, unique: str
) -> None:
    async with proxy_to(redis_url) as proxy:
        store = RedisClaims(proxy.url(redis_url), IdempotencySettings())
        await store.claim(a_claim(f"{unique}warm"))
        proxy.cut_after(1, Direction.TO_CLIENT)

        answer = await store.claim(a_claim(f"{unique}lost"))
        await store.close()

    assert answer == Acquired()


async def test_a_store_that_hangs_is_away_after_its_timeout(redis_url: str, unique: str) -> None:
    async with proxy_to(redis_url) as proxy:
        store = RedisClaims(proxy.url(redis_url), IdempotencySettings(timeout=0.2))
        await store.claim(a_claim(f"{unique}warm"))
        proxy.swallow()

        with pytest.raises(StoreUnavailable, match="did not answer in time"):
            await store.claim(a_claim(unique))
        proxy.resume()
        answer = await store.claim(a_claim(f"{unique}again"))
        await store.close()

    assert answer == Acquired()


async def test_a_release_does_not_overtake_the_claim_it_ends(redis_url: str, unique: str) -> None:
    store, heart = RedisClaims(redis_url, IdempotencySettings()), RedisHeart(redis_url, IdempotencySettings())
    await asyncio.to_thread(heart.beat, A, 30)
    other, claim = a_claim(f"{unique}-other"), a_claim(unique)

    await asyncio.gather(store.release(other), store.claim(claim), store.release(claim))
    answer = await store.claim(a_claim(unique, B))
    await store.close()

    assert answer == Acquired()


async def test_a_cluster_without_an_answering_node_gives_the_lease_once_one_answers(tmp_path: Path) -> None:
    port, facts = free_port(), Facts()
    url = f"redis+cluster://127.0.0.1:{port}"
    settings = IdempotencySettings(url=url, timeout=0.3)  # type: ignore[arg-type]
    store, lease = RedisClaims(url, settings), Lease(RedisHeart(url, settings), seconds=3, emit=facts)

    with pytest.raises(StoreUnavailable):
        await store.findings()
    await lease.start()
    away = lease.error
    with a_redis(tmp_path, "--cluster-enabled", "yes", port=port):
        await asyncio.to_thread(ask, port, "cluster", "addslotsrange", "0", "16383")
        await facts.until(LeaseTaken)
        assert lease.holds()
        await eventually(lambda: _is_acquired(store, a_claim(secrets.token_hex(4))), True)
        await lease.stop()
    await store.close()

    assert "cannot be connected" in away


async def _is_acquired(store: RedisClaims, claim: Claim) -> bool:
    try:
        return await store.claim(claim) == Acquired()
    except StoreUnavailable:
        return False
