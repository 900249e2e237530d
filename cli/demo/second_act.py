"""The second act: a web front end, four services and a saga, with a payment that is declined, a shipment that fails and
a worker that is killed."""

import asyncio
from typing import Any

from rich.console import Console

from ...config import Settings
from ...sagas.reading import read_one, read_overview
from ...sql import Database, OpenerAsync, Outbox, Statements, Steps, ddl
from .fulfilment import LOST, OrderPlaced
from .ledger import Ledger
from .stage import Stage

ORDERS = 40
PATIENCE = 60.0
"""Seconds after the last order in which each must have come to its end."""


async def perform(console: Console, settings: Settings, database: Database[Any], ledger: Ledger, stage: Stage) -> int:
    """Tell the act. Returns 0 if every order is accounted for."""
    await _make_tables(database, settings.sql.schema)
    faults: list[str] = []
    try:
        for name in ("orders", "payments", "inventory", "shipping"):
            await stage.start(name)
        console.print(
            f"\nA front end places {ORDERS} orders with its outbox; a saga takes each through three services."
        )
        for order in range(1, ORDERS + 1):
            await _publish_order(database, Outbox(settings, source="demo.front"), order)
            ledger.orders.add(order)
            if order == ORDERS // 3:
                console.print(await stage.kill("shipping"), markup=False)
            if order == ORDERS // 2:
                await stage.start("shipping")
                console.print("the shipping worker was started again", markup=False)
            await asyncio.sleep(0.05)
        await _until_ended(database, settings, ledger, stage)
    finally:
        faults += await stage.stop()
    statements = database.statements(settings.sql.schema)
    await _show(console, database, statements)
    console.print(ledger.table())
    faults += [f"missing: {line}" for line in ledger.missing()] + ledger.surplus()
    for fault in faults:
        console.print(f"  {fault}", markup=False)
    console.print("Not every order is accounted for." if faults else "Every order is shipped or taken back.")
    return 1 if faults else 0


async def _make_tables(database: Database[Any], schema: str) -> None:
    def make() -> Steps[None]:
        if database.dialect == "postgresql":
            yield f"drop schema if exists {schema} cascade", {}
        for statement in ddl(schema, dialect=database.dialect):
            yield statement, {}

    await database.run(make())


async def _publish_order(database: Database[Any], outbox: Outbox, order: int) -> None:
    """Publish an event in a transaction, as a web application does with its own changes: it has no broker."""
    event, opener = OrderPlaced(order=order), database.opener
    if isinstance(opener, OpenerAsync):
        async with opener.begin() as opened:
            await outbox.publish(opened.user, event)
        return

    def in_thread() -> None:
        with opener.begin() as opened:
            outbox.publish(opened.user, event)

    await asyncio.to_thread(in_thread)


async def _until_ended(database: Database[Any], settings: Settings, ledger: Ledger, stage: Stage) -> None:
    statements, loop = database.statements(settings.sql.schema), asyncio.get_running_loop()
    deadline = loop.time() + PATIENCE
    while ledger.missing() and loop.time() < deadline:
        await asyncio.sleep(0.2)
        stage.look()
        for end in ("shipped", "cancelled"):
            ledger.stages[end] = len(await database.run(read_overview(statements, "fulfilment", end, 0.0, 1000)))


async def _show(console: Console, database: Database[Any], statements: Statements) -> None:
    """Show the order that was taken back, as `holdfast sagas show` does."""
    shown = await database.run(read_one(statements, "fulfilment", str(LOST)))
    console.print(f"\nOrder {LOST} is {shown['stage']}: {shown['reason']}. Its steps:", markup=False)
    for step in shown["steps"]:
        published = ", ".join(sent["type"] for sent in step["published"])
        console.print(f"  {step['event_type']:<18} {step['stage']:<13} {published}".rstrip(), markup=False)
