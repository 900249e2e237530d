"""Relays on RabbitMQ and PostgreSQL while processes and servers die: nothing is lost, and no key is out of order."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
from outboxes import Counted, Outboxes, outboxes
from proxy import Direction, proxy_to
from scraping import total
from waiting import eventually

from holdfast import Settings
from holdfast.sql import Outbox
from holdfast.testing.servers import Node

EACH = int(os.environ.get("RELAYS_EACH", "150"))
"""Events that are to arrive between two faults. `make soak-relays` has more, in one transaction that is open for long,
between two kills and while a server is unavailable."""


def with_sql(settings: Settings, **values: object) -> Settings:
    return settings.model_copy(update={"sql": settings.sql.model_copy(update=values)})


@pytest.fixture
def settings(settings: Settings, unique: str) -> Settings:
    return with_sql(settings, schema=unique, lease=1.0)


@pytest.fixture
async def site(postgres_url: str, settings: Settings, tmp_path: Path) -> AsyncIterator[Outboxes]:
    async with outboxes(postgres_url, settings, tmp_path) as site:
        yield site


async def test_four_relays_killed_one_after_the_other_lose_nothing_and_keep_the_order(site: Outboxes) -> None:
    for _ in range(4):
        site.relay()
    await site.shards_held(4)

    async with site.written():
        for victim in site.relays[:4]:
            await site.until_more(EACH)
            victim.process.kill()
            site.relay()
        await site.until_more(EACH)

    await site.account()


async def test_a_relay_frozen_past_its_lease_neither_overtakes_nor_deletes(site: Outboxes) -> None:
    frozen, _, _ = (site.relay() for _ in range(3))
    await site.shards_held(3)

    async with site.written():
        await site.until_more(EACH)
        frozen.process.send_signal(signal.SIGSTOP)
        await site.shards_held(2)
        await site.until_more(EACH)
        frozen.process.send_signal(signal.SIGCONT)
        await site.shards_held(3)
        await site.until_more(EACH)

    await site.account()


async def test_a_relay_that_is_cut_off_within_a_transaction_stops_no_other(site: Outboxes) -> None:
    async with proxy_to(site.url) as proxy:

        def silence(data: bytes, direction: Direction) -> bytes:
            if direction is Direction.TO_SERVER and b"delete from" in data:
                proxy.swallow(Direction.TO_CLIENT)
            return data

        proxy.alter = silence
        site.relay(HOLDFAST_SQL__URL=proxy.url(site.url).replace("postgresql:", "postgresql+psycopg:"))
        await site.shards_held(1)

        async with site.written():
            await proxy.until_withheld(Direction.TO_CLIENT)
            site.relay()
            await site.until_more(EACH)

        await site.account()


async def test_a_transaction_that_is_open_for_long_delays_nobody_and_is_sent_late(
    site: Outboxes, settings: Settings
) -> None:
    site.relay()
    await site.shards_held(1)
    connection = await asyncpg.connect(site.url)
    try:
        async with connection.transaction():
            await connection.execute(f"insert into {site.schema}.counts values ('late', 1)")
            await Outbox(settings).publish(connection, Counted(account="late", number=1))
            async with site.written():
                await site.until_more(EACH)
            await eventually(lambda: len(site.arrived.all) == site.committed)
    finally:
        await connection.close()

    await site.account()


async def test_a_postgres_that_is_killed_and_restarted_under_load_loses_no_event(
    postgres_node: Node, settings: Settings, tmp_path: Path
) -> None:
    async with outboxes(postgres_node.url, settings, tmp_path) as site:
        for _ in range(2):
            site.relay()
        await site.shards_held(2)

        async with site.written():
            for end in (postgres_node.kill, postgres_node.stop):
                await site.until_more(EACH)
                await asyncio.to_thread(end)
                await asyncio.to_thread(postgres_node.start)
            await site.until_more(EACH)

        await site.account()


async def test_commits_go_on_while_the_broker_is_unavailable_and_the_lag_is_reported(
    postgres_url: str, settings: Settings, tmp_path: Path
) -> None:
    url = settings.broker.url.get_secret_value()
    async with proxy_to(url) as proxy, outboxes(postgres_url, settings, tmp_path) as site:
        served = await site.site(site.relay(HOLDFAST_BROKER__URL=proxy.url(url)))

        async def lags() -> bool:
            figures = await served.figures()
            return all(total(figures, f"holdfast_outbox_{name}") > 0 for name in ("pending", "oldest_seconds"))

        async with site.written():
            await site.until_more(EACH)
            await proxy.refuse()
            before = site.committed
            await eventually(lambda: site.committed >= before + EACH)
            await eventually(lags)
            await proxy.accept()
            await site.until_more(EACH)

        await site.account()
