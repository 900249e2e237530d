"""A database with a saga in it, for the pages that show sagas."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import fulfilment as f
from fulfilment import Fulfilment
from running import publish_all, running
from waiting import Facts

from holdfast import Settings, Worker
from holdfast.dashboard.sagas import Sagas
from holdfast.sql import Database, ddl
from holdfast.telemetry import SagaStepped

ORDER = "<eu/o-1>"
STEPS = (
    (f.OrderCreated(order_id=ORDER, total=Decimal(9)), "paying"),
    (f.PaymentProcessed(order_id=ORDER, payment_id="p-1"), "reserving"),
    (f.StockReserved(order_id=ORDER), "shipping"),
    (f.ShippingFailed(order_id=ORDER, reason="no van"), "compensating"),
)


async def a_saga_that_compensates(folder: Path, unique: str) -> tuple[Sagas, list[str]]:
    """What the pages read, and the ids of the saga's events."""
    database, facts = Database.sqlite(str(folder / "orders.db")), Facts()

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
