"""PostgreSQL behind a PgBouncer that shares connections between transactions: relays are deaf there, and say so."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest
from commands import Running, environment, holdfast
from databases import KINDS, MORE_KINDS, Bank, Kind, a_bank
from running import a_broker, take
from sqlalchemy import text
from waiting import Arrivals, eventually

from holdfast import Event, Settings
from holdfast.broker import Binding, Exchange, Queue, Topology
from holdfast.sql import Listener, Outbox, first_line

POOLED = next(kind for kind in MORE_KINDS if kind.name == "pgbouncer-asyncpg-session")
PREPARED = next(kind for kind in KINDS if kind.name == "asyncpg")
SYNC = next(kind for kind in KINDS if kind.name == "psycopg")


class Ordered(Event, type="ordered", key="order"):
    order: str


@pytest.fixture
async def bank(pgbouncer_url: str, unique: str, tmp_path: Path) -> AsyncIterator[Bank]:
    async with a_bank(POOLED, pgbouncer_url, unique, tmp_path) as bank:
        yield bank


@asynccontextmanager
async def listening(listener: Listener, deaf: Arrivals[None]) -> AsyncIterator[None]:
    task = asyncio.create_task(listener.listen(lambda: deaf(None)))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_notification_that_does_not_come_back_is_noticed(bank: Bank) -> None:
    heard, deaf = Arrivals[None](), Arrivals[None]()

    async with listening(Listener(bank.database, bank.schema, lambda: heard(None)), deaf):
        await deaf.next()

    assert heard.all == []


@pytest.mark.parametrize("kind", [POOLED, SYNC], ids=["pooled", "def"])
async def test_a_direct_connection_hears_what_is_committed_behind_the_pooler(
    kind: Kind, bank: Bank, pgbouncer_url: str, postgres_url: str
) -> None:
    heard, deaf = Arrivals[None](), Arrivals[None]()

    async with AsyncExitStack() as stack:
        database = await kind.open(stack, pgbouncer_url, "")
        listener = Listener(database, bank.schema, lambda: heard(None), url=postgres_url)
        await stack.enter_async_context(listening(listener, deaf))
        await heard.next()  # the notification by which it proves that it hears
        outbox = Outbox(Settings(_env_file=None, sql={"schema": bank.schema}))  # type: ignore[call-arg, arg-type]
        async with bank.transaction() as within:
            await bank.publish(outbox, within, Ordered(order="o-1"))
        await heard.next()

    assert deaf.all == []


async def test_the_commands_work_through_the_pooler_with_a_direct_connection_to_listen_on(
    pgbouncer_url: str, postgres_url: str, settings: Settings, unique: str, tmp_path: Path
) -> None:
    env = environment(
        HOLDFAST_BROKER__URL=settings.broker.url.get_secret_value(),
        HOLDFAST_BROKER__EXCHANGE=settings.broker.exchange,
        HOLDFAST_LOG__FORMAT="json",
        HOLDFAST_SQL__URL=pgbouncer_url,
        HOLDFAST_SQL__LISTEN_URL=postgres_url,
        HOLDFAST_SQL__SCHEMA=unique,
    )
    queue = Queue("orders." + unique, {"x-queue-type": "quorum"})
    binding = Binding(settings.broker.exchange, queue.name, "ordered")

    async with a_broker(settings) as broker:
        await broker.declare(Topology((Exchange(settings.broker.exchange),), (queue,), (binding,)))
        assert "CREATE TABLE" in holdfast("sql", "schema", "--apply", folder=tmp_path, env=env).stdout
        assert holdfast("sql", "check", folder=tmp_path, env=env).returncode == 0
        with Running("relay", folder=tmp_path, env=env) as relay:
            relay.until(lambda log: "relay.started" in log)
            outbox = Outbox(settings.model_copy(update={"sql": settings.sql.model_copy(update={"schema": unique})}))
            for number in range(20):
                connection = await asyncpg.connect(postgres_url)
                async with connection.transaction():
                    await outbox.publish(connection, Ordered(order=f"o-{number}"))  # type: ignore[call-overload]
                await connection.close()
            messages = await take(broker, queue.name, 20)
            await eventually(lambda: pending(tmp_path, env), 0)
            assert relay.stop() == 0, relay.log

    assert len(messages) == 20
    assert "outbox.deaf" not in relay.log and "relay.failed" not in relay.log


async def pending(folder: Path, env: dict[str, str]) -> int:
    return int(holdfast("outbox", "show", folder=folder, env=env).stdout.split()[0])


async def test_a_prepared_statement_that_is_another_connections_is_explained(bank: Bank, pgbouncer_url: str) -> None:
    async with AsyncExitStack() as stack:
        prepared = replace(bank, database=await PREPARED.open(stack, pgbouncer_url, ""))
        await prepared.ask("select 1")
        async with bank.transaction() as session:
            await session.execute(text("select 2"))  # it has the connection that knows the statement

            with pytest.raises(asyncpg.InvalidSQLStatementNameError) as failure:
                await prepared.ask("select 1")

    assert first_line(failure.value).endswith("keep the driver from preparing statements)")
