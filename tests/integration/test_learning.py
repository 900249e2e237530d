"""What a worker learns of its servers is learned anew: passwords that were replaced, a Redis that came back another."""

import asyncio
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from shutil import copy

import pytest
from proxy import Direction, proxy_to
from rabbits import Rabbit
from redises import ADMIN, LOOPBACK, a_redis, ask, certificates, with_sentinel, with_tls, with_users
from running import a_broker, a_worker, publish_all, running, settings_for
from waiting import Facts

from holdfast import Event, Settings, Worker
from holdfast.broker import Topology
from holdfast.config import BrokerSettings, IdempotencySettings
from holdfast.idempotency import Acquired, Claim, StoreUnavailable
from holdfast.idempotency.redis import RedisClaims, RedisHeart
from holdfast.telemetry import ClaimsEndangered, Connected, Paused, Resumed


class Paid(Event, type="paid"):
    order: str


@pytest.fixture
def facts() -> Facts:
    return Facts()


def put(file: Path, text: str) -> None:
    file.write_text(text)


async def ignore(event: Paid) -> None: ...


def idle(settings: Settings, facts: Facts) -> Worker:
    worker = a_worker(settings, facts)
    worker.handler(Paid)(ignore)
    return worker


@pytest.mark.parametrize("holds", ["password", "url"])
async def test_a_password_of_the_broker_that_is_replaced_is_read_with_each_connection(
    rabbit: Rabbit, unique: str, tmp_path: Path, facts: Facts, holds: str
) -> None:
    rabbit.node.ctl("add_user", unique, "first")
    rabbit.node.ctl("set_permissions", unique, ".*", ".*", ".*")
    file, settings = tmp_path / "secret", settings_for(rabbit.node.url, unique)
    async with proxy_to(rabbit.node.url) as proxy:
        url = proxy.url(rabbit.node.url.replace("guest:guest", unique))
        forms = {"password": "{}", "url": url.replace(f"{unique}@", unique + ":{}@")}
        put(file, forms[holds].format("first"))
        broker_settings = BrokerSettings(url=url, **{f"{holds}_file": str(file)})  # type: ignore[arg-type]
        async with a_broker(settings.model_copy(update={"broker": broker_settings}), facts) as broker:
            await broker.declare(Topology())
            rabbit.node.ctl("change_password", unique, "second")
            put(file, forms[holds].format("second"))
            proxy.cut()
            await facts.until(Connected, count=2)
    rabbit.node.ctl("delete_user", unique)


@pytest.mark.parametrize("holds", ["password", "url"])
async def test_a_password_of_redis_that_is_replaced_is_read_with_each_connection(
    tmp_path: Path, unique: str, holds: str
) -> None:
    with with_users(tmp_path) as (url, files):
        port = url.rpartition(":")[2].partition("/")[0]
        secret = Path(files["password_file"])
        forms = {"password": "{}", "url": url.replace("shop@", "shop:{}@")}
        put(secret, forms[holds].format("s3cret"))
        settings = IdempotencySettings(url=url, **{f"{holds}_file": str(secret)})  # type: ignore[arg-type]
        store, heart = RedisClaims(url, settings), RedisHeart(url, settings)
        heart.beat(b"owner--1", 30)
        await store.claim(Claim(f"holdfast:q:{unique}", b"token--1", bytes(8), b"owner--1"))

        ask(int(port), "acl", "setuser", "shop", "resetpass", ">another", cli=ADMIN)
        put(secret, forms[holds].format("another"))
        ask(int(port), "client", "kill", "type", "normal", "skipme", "yes", cli=ADMIN)
        answer = await store.claim(Claim(f"holdfast:q:{unique}-2", b"token--2", bytes(8), b"owner--1"))
        heart.beat(b"owner--1", 30)

        await store.close()
        heart.stop(b"owner--1")
    assert answer == Acquired()


async def test_certificates_of_redis_that_are_replaced_are_read_with_each_connection(
    tmp_path: Path, unique: str
) -> None:
    """First the authority is another's, so that the server is not trusted, then the right one; last our own certificate
    is broken when the connection is lost, and mended."""
    with with_tls(tmp_path) as (url, files):
        (tmp_path / "other").mkdir()
        certificates(tmp_path / "other")
        authority, own = tmp_path / "ours.pem", tmp_path / "own.pem"
        copy(tmp_path / "other" / "ca.pem", authority)
        copy(files["cert_file"], own)
        ours = {**files, "ca_file": str(authority), "cert_file": str(own)}
        store = RedisClaims(url, IdempotencySettings(url=url, **ours))  # type: ignore[arg-type]
        heart = RedisHeart(url, IdempotencySettings(url=url, **ours))  # type: ignore[arg-type]
        claims = (Claim(f"holdfast:q:{unique}-{n}", b"token--1", bytes(8), b"owner--1") for n in count())

        with pytest.raises(StoreUnavailable):
            heart.beat(b"owner--1", 30)
        with pytest.raises(StoreUnavailable, match="the certificate is not valid"):
            await store.claim(next(claims))
        copy(files["ca_file"], authority)
        assert await store.claim(next(claims)) == Acquired()
        heart.beat(b"owner--1", 30)

        put(own, "no certificate")
        cli = ("--tls", "--cacert", files["ca_file"], "--cert", files["cert_file"], "--key", files["key_file"])
        port = int(url.rpartition(":")[2].partition("/")[0])
        ask(port, "client", "kill", "type", "normal", "skipme", "yes", cli=cli)
        with pytest.raises(StoreUnavailable):
            await store.claim(next(claims))
        copy(files["cert_file"], own)
        assert await store.claim(next(claims)) == Acquired()

        await store.close()
        heart.stop(b"owner--1")


async def test_a_password_of_sentinels_that_is_replaced_is_read_with_each_connection(
    tmp_path: Path, unique: str
) -> None:
    with with_sentinel(tmp_path) as (url, more):
        secret = tmp_path / "sentinel-password"
        put(secret, "another")
        settings = IdempotencySettings(
            url=url,  # type: ignore[arg-type]
            sentinel_username=more["sentinel_username"],
            sentinel_password_file=secret,
        )
        store, heart = RedisClaims(url, settings), RedisHeart(url, settings)
        with pytest.raises(StoreUnavailable):
            await store.claim(Claim(f"holdfast:q:{unique}", b"token--1", bytes(8), b"owner--1"))
        with pytest.raises(StoreUnavailable):
            heart.beat(b"owner--1", 30)

        put(secret, more["sentinel_password"])
        answer = await store.claim(Claim(f"holdfast:q:{unique}", b"token--1", bytes(8), b"owner--1"))
        heart.beat(b"owner--1", 30)

        await store.close()
        heart.stop(b"owner--1")
    assert answer == Acquired()


def without_flags(data: bytes, way: Direction) -> bytes:
    """What a Redis older than 7 does to a script with flags: it does not compile."""
    return data.replace(b"#!lua", b"#?lua") if way is Direction.TO_SERVER else data


def as_version_6(data: bytes, way: Direction) -> bytes:
    return re.sub(rb"redis_version:\d", b"redis_version:6", without_flags(data, way))


@pytest.mark.parametrize("info", ["read", "refused"])
async def test_a_redis_older_than_7_keeps_claims_though_nobody_may_read_its_version(
    settings: Settings, tmp_path: Path, facts: Facts, info: str
) -> None:
    users = tmp_path / "users.acl"
    users.write_text(f"user default on nopass ~* +@all {'-info' if info == 'refused' else ''}\n")
    with a_redis(tmp_path, "--aclfile", str(users)) as port:
        async with proxy_to(f"redis://{LOOPBACK}:{port}/0") as proxy:
            proxy.alter = as_version_6
            claims = {"idempotency": IdempotencySettings(url=proxy.url(f"redis://{LOOPBACK}:{port}/0"))}  # type: ignore[arg-type]
            async with running(idle(settings.model_copy(update=claims), facts)):
                await publish_all(settings, [Paid(order="o-1")])
                [settled] = await facts.settled("handled")

    text = "is older than 7" if info == "read" else "may not read INFO"
    assert settled.completion == "recorded"
    assert [fact for fact in facts.of(ClaimsEndangered) if text in fact.finding]


async def test_a_redis_that_comes_back_another_is_learned_anew(
    settings: Settings, redis_url: str, facts: Facts
) -> None:
    async with proxy_to(redis_url) as proxy:
        claims = {"idempotency": IdempotencySettings(url=proxy.url(redis_url), prefix=settings.broker.exchange)}  # type: ignore[arg-type]
        await proxy.refuse()
        worker = idle(settings.model_copy(update=claims), facts)
        running = asyncio.create_task(worker.run())
        await facts.until(Paused)
        proxy.alter = as_version_6
        await proxy.accept()
        await facts.until(Resumed)
        await publish_all(settings, [Paid(order="o-1")])
        [settled] = await facts.settled("handled")
        worker.stop()
        await running

    assert settled.completion == "recorded"
    assert [fact for fact in facts.of(ClaimsEndangered) if "is older than 7" in fact.finding]


@contextmanager
def silence() -> Iterator[str]:
    """The address of a server that takes connections and says nothing."""
    with socket.socket() as listening:
        listening.bind((LOOPBACK, 0))
        listening.listen()
        yield f"{LOOPBACK}:{listening.getsockname()[1]}"


async def test_the_second_sentinel_is_asked_where_the_first_is_silent(
    settings: Settings, tmp_path: Path, facts: Facts
) -> None:
    with with_sentinel(tmp_path) as (url, more), silence() as silent:
        both = url.replace("redis+sentinel://", f"redis+sentinel://{silent},")
        claims = {"idempotency": IdempotencySettings(url=both, **more)}  # type: ignore[arg-type]
        async with running(idle(settings.model_copy(update=claims), facts)):
            await publish_all(settings, [Paid(order="o-1")])
            [settled] = await facts.settled("handled")

    assert settled.completion == "recorded"


async def test_a_silent_redis_is_reported_and_left_before_its_library_has_given_up(
    settings: Settings, facts: Facts
) -> None:
    """With 5 s for an answer, all that redis-py tries takes longer than a test may."""
    with silence() as silent:
        claims = {"idempotency": IdempotencySettings(url=f"redis://{silent}/0", timeout=5)}  # type: ignore[arg-type]
        worker = idle(settings.model_copy(update=claims), facts)
        running = asyncio.create_task(worker.run())
        await facts.until(Paused)
        worker.stop()
        async with asyncio.timeout(60):
            await running
