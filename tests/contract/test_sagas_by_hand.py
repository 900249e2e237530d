"""Sagas that are moved by hand, on each kind of database that keeps its events."""

import sqlite3
from decimal import Decimal
from pathlib import Path
from typing import Any

import fulfilment as f
import pytest
from databases import Bank, banks, keeping
from fulfilment import Fulfilment
from running import a_worker, publish_all, running
from sqlalchemy import event as of_sqlalchemy
from sqlalchemy.ext.asyncio import create_async_engine
from waiting import Arrivals, Facts

from holdfast import ConfigurationError, Context, Settings, Worker
from holdfast.sagas.by_hand import ByHand
from holdfast.sql import Database, ddl
from holdfast.telemetry import SagaStepped

ONE_OF_EACH = [each for each in keeping() if each.id in ("sqlite", "asyncpg-session", "psycopg-session")]
ORDER = "o-1"
TO_COMPENSATION = (
    (f.OrderCreated(order_id=ORDER, total=Decimal(9)), "paying"),
    (f.PaymentProcessed(order_id=ORDER, payment_id="p-1"), "reserving"),
    (f.StockReserved(order_id=ORDER), "shipping"),
    (f.ShippingFailed(order_id=ORDER, reason="no van"), "compensating"),
)


bank = banks(ONE_OF_EACH, keeps=True)


@pytest.fixture
def settings(unique: str) -> Settings:
    broker: Any = {"url": f"memory://{unique}", "exchange": unique}
    sql: Any = {"schema": unique, "keep": "forever", "poll": 0.05}
    return Settings(_env_file=None, broker=broker, sql=sql)  # type: ignore[call-arg]


def a_hand(database: Database[Any], schema: str) -> ByHand:
    return ByHand(Fulfilment, database, schema=schema, source="orders", queue="orders.fulfilment", keeps=True)


def orders(settings: Settings, facts: Facts, bank: Bank) -> tuple[Worker, Arrivals[str]]:
    """The worker of the saga, and a bank that hears of refunds and does not answer."""
    worker, refunds = a_worker(settings, facts), Arrivals[str]()
    worker.include(Fulfilment, within=bank.database)

    @worker.handler(f.RefundPayment)
    async def refund(event: f.RefundPayment, ctx: Context) -> None:
        refunds(ctx.event_id)

    return worker, refunds


async def test_an_undo_that_the_journal_keeps_is_published_again(bank: Bank, settings: Settings) -> None:
    facts = Facts()
    worker, refunds = orders(settings, facts, bank)
    hand = a_hand(bank.database, bank.schema)

    async with running(worker):
        for event, stage in TO_COMPENSATION:
            await publish_all(settings, [event])
            await facts.until(SagaStepped, lambda fact, stage=stage: fact.stage == stage)
        published = await refunds.next()
    await hand.nudge(ORDER, "the bank was down")
    with pytest.raises(ConfigurationError, match=f"event {published} is not sent yet: a relay sends it"):
        await hand.nudge(ORDER, "twice")
    worker, refunds = orders(settings, facts, bank)
    async with running(worker):
        again = await refunds.next()

    assert again == published
    kept = f"select count(*) from {bank.statements.table('events')} where event_type = 'refund.payment'"
    assert await bank.ask(kept) == [(1,)]
    taken = f"select event_type from {bank.statements.table('saga_steps')} where taken = 'by hand'"
    assert await bank.ask(taken) == [("nudge",)]


async def test_a_saga_that_has_left_its_stage_is_not_moved_from_there(bank: Bank, settings: Settings) -> None:
    facts = Facts()
    async with running(orders(settings, facts, bank)[0]):
        await publish_all(settings, [TO_COMPENSATION[0][0]])
        await facts.until(SagaStepped, lambda fact: fact.stage == "paying")
    hand = a_hand(bank.database, bank.schema)

    moved = [await hand.move(ORDER, "shipping", "lost", of_stage=stage) for stage in ("reserving", "paying", "paying")]

    assert moved == [False, True, False]
    assert await bank.ask(f"select stage, version from {bank.statements.table('sagas')}") == [("shipping", 2)]


async def test_a_saga_that_is_moved_meanwhile_is_moved_once_more(tmp_path: Path) -> None:
    file = tmp_path / "orders.db"
    with sqlite3.connect(file) as connection:
        for statement in ddl(dialect="sqlite", keeps=True):
            connection.execute(statement)
        connection.execute(
            "insert into holdfast_sagas values ('fulfilment', 'o-1', 'l', 1, 'paying', 1, "
            """'{"order_id": "o-1", "total": "9"}', 1, '[]', null, null, 0, 0, null)"""
        )
    engine = create_async_engine(f"sqlite+aiosqlite:///{file}")
    meanwhile = ["update holdfast_sagas set version = 2, stage = 'reserving'"]

    @of_sqlalchemy.listens_for(engine.sync_engine, "before_cursor_execute")
    def move(_: Any, __: Any, statement: str, *___: Any) -> None:
        if statement.startswith("update holdfast_sagas") and meanwhile:
            with sqlite3.connect(file) as other:
                other.execute(meanwhile.pop())

    moved = await a_hand(Database(engine), "holdfast").move(ORDER, "shipping", "packed by hand")

    await engine.dispose()
    with sqlite3.connect(file) as connection:
        rows = list(connection.execute("select stage, version from holdfast_sagas"))
        steps = list(connection.execute("select stage_before, stage from holdfast_saga_steps"))
    assert (moved, rows, steps) == (True, [("shipping", 3)], [("reserving", "shipping")])
