"""The pages of sagas next to the dead letters: what rests where, and one saga with its steps and its stages."""

from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import fulfilment as f
import pytest
from browsing import a_visitor
from fulfilment import Fulfilment
from morgue import a_desk
from running import publish_all, running
from waiting import Facts

from holdfast import Settings, Worker
from holdfast.dashboard.sagas import Sagas, stage_columns
from holdfast.dead_letters import DeadLetters
from holdfast.sql import Database, ddl
from holdfast.telemetry import SagaStepped

ORDER = "<eu/o-1>"
STEPS = (
    (f.OrderCreated(order_id=ORDER, total=Decimal(9)), "paying"),
    (f.PaymentProcessed(order_id=ORDER, payment_id="p-1"), "reserving"),
    (f.StockReserved(order_id=ORDER), "shipping"),
    (f.ShippingFailed(order_id=ORDER, reason="no van"), "compensating"),
)


@pytest.fixture
async def desk(settings: Settings, tmp_path: Path) -> AsyncIterator[DeadLetters]:
    async with a_desk(settings, tmp_path) as opened:
        yield opened


@pytest.fixture
async def sagas(tmp_path: Path, unique: str) -> tuple[Sagas, list[str]]:
    """A database with one saga that compensates, and the ids of its events."""
    database, facts = Database.sqlite(str(tmp_path / "orders.db")), Facts()

    def steps(statement: str) -> Any:
        return (yield statement, {})

    for statement in ddl(dialect="sqlite"):
        await database.run(steps(statement))
    memory = Settings(_env_file=None, broker={"url": f"memory://{unique}"})  # type: ignore[call-arg, arg-type]
    worker = Worker("orders", settings=memory, listeners=[facts.record])
    worker.include(Fulfilment, within=database)
    async with running(worker):
        for event, stage in STEPS:
            await publish_all(memory, [event])
            await facts.until(SagaStepped, lambda fact, stage=stage: fact.stage == stage)
    graphs = {"fulfilment": Fulfilment.graph()}
    return Sagas(database, "holdfast", graphs), [fact.event_id for fact in facts.of(SagaStepped)]


async def test_the_pages_say_where_each_saga_stands_and_by_which_events(
    desk: DeadLetters, sagas: tuple[Sagas, list[str]]
) -> None:
    of_database, event_ids = sagas

    async with a_visitor(desk, sagas=of_database) as visitor:
        kinds = (await visitor.get("/sagas")).text
        listed = (await visitor.get("/sagas/fulfilment?stage=compensating")).text
        none = (await visitor.get("/sagas/fulfilment?stage=stuck")).text
        shown = (await visitor.get("/sagas/fulfilment/%3Ceu/o-1%3E")).text
        missing = await visitor.get("/sagas/fulfilment/o-7")

    assert "fulfilment" in kinds and "compensating" in kinds
    assert "&lt;eu/o-1&gt;" in listed and 'href="/sagas/fulfilment/%3Ceu/o-1%3E"' in listed
    assert "not shipped: no van" in listed and "There is none in this stage" in none
    assert all(event_id in shown for event_id in event_ids)
    assert "refund.payment" in shown and "awaits <code>payment.refunded</code>" in shown
    assert shown.count('aria-current="step"') == 1
    assert missing.status_code == 400 and "there is no saga fulfilment" in missing.text


async def test_without_a_database_there_are_no_pages_of_sagas(desk: DeadLetters) -> None:
    async with a_visitor(desk) as visitor:
        queues = (await visitor.get("/")).text
        sagas = await visitor.get("/sagas")

    assert "/sagas" not in queues
    assert sagas.status_code == 404 and "HOLDFAST_SQL__URL" in sagas.text


def test_each_stage_stands_in_one_column_after_those_that_lead_to_it() -> None:
    columns = [[name for name, _ in column] for column in stage_columns(Fulfilment.graph())]

    assert columns == [
        ["[*]"],
        ["paying"],
        ["reserving", "cancelled"],
        ["shipping"],
        ["shipped", "compensating"],
        ["stuck"],
    ]
