"""Processes that fall silent within a transaction of Holdfast's own, and what they had locked."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import asyncpg
import pytest
from proxy import Direction, Proxy, proxy_to
from waiting import LIMIT

from holdfast.sql import Database, DatabaseUnavailable, Steps

LARGE = "select repeat('x', 1000000) from generate_series(1, 100)"


@pytest.fixture
async def table(postgres_url: str, unique: str) -> AsyncIterator[str]:
    """A table with one row."""
    connection = await asyncpg.connect(postgres_url)
    await connection.execute(f"create table {unique} as select 1 as number")
    yield unique
    await connection.execute(f"drop table {unique}")
    await connection.close()


@pytest.fixture
async def proxy(postgres_url: str) -> AsyncIterator[Proxy]:
    async with proxy_to(postgres_url) as proxy:
        yield proxy


async def until_free(url: str, table: str) -> None:
    """Wait until no transaction has locked the row."""
    connection = await asyncpg.connect(url)
    try:
        async with asyncio.timeout(LIMIT):
            assert await connection.fetch(f"select from {table} for update")
    finally:
        await connection.close()


async def falls_silent(url: str, table: str, proxy: Proxy, steps: Steps[None]) -> None:
    """Take steps until the proxy withholds their answers, and return once the row that they locked is free."""
    async with asyncpg.create_pool(proxy.url(url), min_size=1) as pool:
        silent = asyncio.create_task(Database.asyncpg(pool).run(steps))
        await proxy.until_withheld(Direction.TO_CLIENT)

        await until_free(url, table)

        pool.terminate()
        with suppress(Exception):
            await silent


async def test_what_a_silent_process_has_locked_is_free_soon(postgres_url: str, table: str, proxy: Proxy) -> None:
    def steps() -> Steps[None]:
        yield "select 1", {}  # asyncpg prepares a statement first, and awaits the answer before it ends its request
        yield f"delete from {table}", {}
        proxy.swallow(Direction.TO_CLIENT)
        yield "select 1", {}

    await falls_silent(postgres_url, table, proxy, steps())


async def test_a_database_that_falls_silent_counts_as_unavailable(postgres_url: str, table: str, proxy: Proxy) -> None:
    def steps() -> Steps[None]:
        yield f"select from {table}", {}
        proxy.swallow(Direction.TO_CLIENT)
        yield f"select from {table}", {}

    async with asyncpg.create_pool(proxy.url(postgres_url), min_size=1) as pool:
        with pytest.raises(DatabaseUnavailable, match=r"no answer within 0.5 s"):
            await Database.asyncpg(pool).run(steps(), within=0.5)
        pool.terminate()


async def test_a_transaction_of_ours_sees_what_commits_meanwhile_whatever_the_default(postgres_url: str) -> None:
    def steps() -> Steps[str]:
        [(level,)] = yield "show transaction_isolation", {}
        return str(level)

    strict = {"default_transaction_isolation": "serializable"}
    async with asyncpg.create_pool(postgres_url, min_size=1, server_settings=strict) as pool:
        assert await Database.asyncpg(pool).run(steps()) == "read committed"


async def test_so_is_what_a_process_has_locked_that_takes_in_nothing(
    postgres_url: str, table: str, proxy: Proxy
) -> None:
    def silence(data: bytes, direction: Direction) -> bytes:
        if b"xxxx" in data:
            proxy.swallow(Direction.TO_CLIENT)
        return data

    def steps() -> Steps[None]:
        yield f"delete from {table}", {}
        yield LARGE, {}

    proxy.alter = silence
    await falls_silent(postgres_url, table, proxy, steps())
