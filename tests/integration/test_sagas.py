"""Sagas on RabbitMQ and PostgreSQL: workers and servers die, and each charge is shipped or refunded, never both."""

import random
import signal
from collections.abc import AsyncIterator
from contextlib import ExitStack
from decimal import Decimal
from itertools import permutations
from pathlib import Path
from typing import Any

import asyncpg
import fulfilment as f
import pytest
from apps import APPS
from commands import Running, environment
from fulfilment import Fulfilment
from running import a_worker, publish_all, running
from saga_arena import OrderPlaced
from waiting import Facts, eventually

from holdfast import Settings
from holdfast.sql import Database, ddl
from holdfast.testing.servers import Node

ARROWS = (
    "the saga is locked",
    "the step is written",
    "the commit of a step is sent",
    "the step is committed",
    "the limit is cleared",
    "the commit of a limit is sent",
)


STORY = (
    f.OrderCreated(order_id="", total=Decimal(9)),
    f.PaymentProcessed(order_id="", payment_id="p-1"),
    f.StockReserved(order_id=""),
    f.ShippingFailed(order_id="", reason="no van"),
    f.PaymentRefunded(order_id=""),
)


async def ask(url: str, sql: str) -> list[tuple[Any, ...]]:
    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(sql)]
    finally:
        await connection.close()


async def prepare(url: str, schema: str) -> None:
    for statement in (*ddl(schema), f"create table {schema}.entries (kind text, number integer)"):
        await ask(url, statement)


@pytest.fixture
async def schema(postgres_url: str, unique: str) -> AsyncIterator[str]:
    """A schema of this test's own, with the tables."""
    await prepare(postgres_url, unique)
    yield unique
    await ask(postgres_url, f"drop schema {unique} cascade")


def variables(settings: Settings, url: str, schema: str, **more: str) -> dict[str, str]:
    return environment(
        HOLDFAST_BROKER__URL=settings.broker.url.get_secret_value(),
        HOLDFAST_BROKER__EXCHANGE=settings.broker.exchange,
        HOLDFAST_BROKER__MAX_DELAY="3600",
        HOLDFAST_LOG__FORMAT="json",
        HOLDFAST_SQL__SCHEMA=schema,
        HOLDFAST_SQL__LEASE="1",
        LEDGER_URL=url.replace("postgresql:", "postgresql+asyncpg:"),
        **more,
    )


async def until_ended(url: str, schema: str, orders: int) -> None:
    """Wait until every saga has ended and every event is sent."""

    async def rest() -> tuple[int, int]:
        [(ended,)] = await ask(url, f"select count(*) from {schema}.sagas where ended_at is not null")
        [(refunds,)] = await ask(
            url,
            f"select (select count(*) from {schema}.entries where kind = 'charged') - "
            f"(select count(*) from {schema}.entries where kind <> 'charged')",
        )
        return ended, refunds

    await eventually(rest, (orders, 0), within=120, every=0.2)


async def check_the_ledger(url: str, schema: str, orders: int) -> None:
    """Each charge is shipped or refunded: never both, never neither, and never twice."""
    rows = await ask(url, f"select number, kind, count(*) from {schema}.entries group by 1, 2")
    kinds = {number: sorted(kind for order, kind, _ in rows if order == number) for number in range(orders)}

    assert {count for _, _, count in rows} == {1}
    for number in range(orders):
        payable = number % 5 != 0
        allowed = (["charged", "refunded"], ["charged", "shipped"]) if payable else ([],)
        assert kinds[number] in allowed, (number, kinds[number])
        if number % 5 == 2:
            assert kinds[number] == ["charged", "refunded"]
    assert await ask(url, f"select count(*) from {schema}.sagas where undo <> '[]' or due_at is not null") == [(0,)]


@pytest.mark.timeout(180)
@pytest.mark.parametrize("arrow", ARROWS)
async def test_a_worker_killed_at_an_arrow_ships_or_refunds_each_charge(
    arrow: str, schema: str, postgres_url: str, settings: Settings, tmp_path: Path
) -> None:
    env = variables(settings, postgres_url, schema, DIE_AT=arrow, DIED=str(tmp_path / "died"))
    with Running("run", "saga_arena:worker", folder=APPS, env=env) as first:
        first.until(lambda log: "worker.started" in log)
        await publish_all(settings, [OrderPlaced(order=n) for n in range(10)])
        assert first.process.wait(60) == -signal.SIGKILL, first.log

    with Running("run", "saga_arena:worker", folder=APPS, env=env) as second:
        await until_ended(postgres_url, schema, 10)
        assert second.stop() == 0, second.log

    await check_the_ledger(postgres_url, schema, 10)


@pytest.mark.timeout(300)
async def test_eight_workers_some_of_them_killed_and_postgres_restarted_end_twenty_sagas(
    postgres_node: Node, settings: Settings, unique: str, tmp_path: Path
) -> None:
    url = postgres_node.url
    await prepare(url, unique)
    env = variables(settings, url, unique)

    with ExitStack() as stack:

        def start() -> Running:
            return stack.enter_context(Running("run", "saga_arena:worker", folder=APPS, env=env))

        workers = [start() for _ in range(8)]
        for worker in workers:
            worker.until(lambda log: "worker.started" in log)
        await publish_all(settings, [OrderPlaced(order=n) for n in range(20)])
        for kind, victim in (("charged", 0), ("shipped", 1), ("refunded", 2)):
            first = f"select count(*) > 0 from {unique}.entries where kind = '{kind}'"
            await eventually(lambda first=first: ask(url, first), [(True,)])
            workers[victim].process.kill()
        workers += [start()]
        compensating = f"select count(*) > 0 from {unique}.saga_steps where stage = 'compensating'"
        await eventually(lambda: ask(url, compensating), [(True,)])
        postgres_node.kill()
        postgres_node.start()
        await until_ended(url, unique, 20)

        for worker in workers[3:]:
            assert worker.stop() == 0, worker.log

    await check_the_ledger(url, unique, 20)


@pytest.mark.timeout(180)
async def test_workers_whose_clocks_are_moved_by_hours_fire_each_limit_once_and_none_early(
    schema: str, postgres_url: str, settings: Settings
) -> None:
    env = variables(settings, postgres_url, schema)

    with ExitStack() as stack:
        workers = [
            stack.enter_context(Running("run", "saga_arena:worker", folder=APPS, env=env | {"HOURS_OFF": hours}))
            for hours in ("0", "1", "-1")
        ]
        for worker in workers:
            worker.until(lambda log: "worker.started" in log)
        await publish_all(settings, [OrderPlaced(order=n) for n in range(10)])
        charged = f"select count(*) > 0 from {schema}.entries where kind = 'charged'"
        await eventually(lambda: ask(postgres_url, charged), [(True,)])
        for worker in workers:
            worker.process.send_signal(signal.SIGUSR2)
        await until_ended(postgres_url, schema, 10)

        for worker in workers:
            assert worker.stop() == 0, worker.log

    await check_the_ledger(postgres_url, schema, 10)
    waited = (
        f"select s.key, count(*), min(s.at - f.at) >= interval '3 seconds' from {schema}.saga_steps s "
        f"join {schema}.saga_steps f on s.key = f.key and f.version = 1 where s.taken = 'overdue' group by 1 order by 1"
    )
    assert await ask(postgres_url, waited) == [("1", 1, True), ("6", 1, True)]


@pytest.mark.timeout(180)
async def test_events_in_any_order_end_alike_on_rabbitmq_and_postgresql(
    schema: str, postgres_url: str, settings: Settings
) -> None:
    """Twelve of the 120 orders in which five events may come; the harness has all of them."""
    settings = settings.model_copy(update={"sql": settings.sql.model_copy(update={"schema": schema})})
    pool = await asyncpg.create_pool(postgres_url, min_size=1, max_size=8)
    worker = a_worker(settings, Facts())
    worker.include(Fulfilment, within=Database.asyncpg(pool))
    some = random.Random(5).sample([*permutations(STORY)], 12)

    async with running(worker):
        for number, story in enumerate(some):
            await publish_all(settings, [event.model_copy(update={"order_id": f"o-{number}"}) for event in story])
        ends = f"select stage, reason, count(*), sum(version) from {schema}.sagas group by 1, 2"
        expected = [("cancelled", "not shipped: no van", 12, 60)]
        await eventually(lambda: ask(postgres_url, ends), expected, within=120, every=0.2)
    await pool.close()

    late = f"select count(*) from {schema}.saga_steps where taken = 'late'"
    assert await ask(postgres_url, late) == [(0,)]
