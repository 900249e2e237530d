"""`holdfast sagas`: what it shows, and sagas that are moved by hand while their worker runs."""

import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import fulfilment as f
import pytest
from apps import APPS
from commands import environment, holdfast
from fulfilment import Fulfilment
from running import publish_all, running
from waiting import Facts, eventually

from holdfast import Context, Settings, Worker
from holdfast.sql import Database, ddl
from holdfast.telemetry import SagaStepped

ORDER = "o-1"
CREATED = f.OrderCreated(order_id=ORDER, total=Decimal(9))
TO_THE_END = (
    (f.PaymentProcessed(order_id=ORDER, payment_id="p-1"), "reserving"),
    (f.StockReserved(order_id=ORDER), "shipping"),
    (f.ShippingFailed(order_id=ORDER, reason="no van"), "compensating"),
)


class Shop:
    """The worker of orders and a bank that hears of refunds and does not answer, on a file of SQLite."""

    def __init__(self, folder: Path, unique: str) -> None:
        self.facts, self.refunds, self.folder = Facts(), list[str](), folder
        self.file = folder / "orders.db"
        self.database = Database.sqlite(str(self.file))
        settings = Settings(
            _env_file=None,  # type: ignore[call-arg]
            broker={"url": f"memory://{unique}"},  # type: ignore[arg-type]
        )
        self.settings = settings
        self.worker = Worker("orders", settings=settings, listeners=[self.facts.record])
        self.worker.include(Fulfilment, within=self.database)

        @self.worker.handler(f.RefundPayment)
        async def refund(event: f.RefundPayment, ctx: Context) -> None:
            self.refunds.append(ctx.event_id)

    async def ask(self, statement: str) -> list[tuple[Any, ...]]:
        def steps() -> Any:
            return (yield statement, {})

        rows: list[tuple[Any, ...]] = await self.database.run(steps())
        return rows

    async def publish(self, event: Any, stage: str) -> None:
        """Publish an event, and return once the saga is in a stage."""
        await publish_all(self.settings, [event])
        await self.until(stage)

    async def until(self, stage: str, *, count: int = 1) -> None:
        await self.facts.until(SagaStepped, lambda fact: fact.stage == stage, count=count)


Command = Callable[..., str]


@pytest.fixture
def sagas(shop: Shop) -> Command:
    """Runs a command of `holdfast sagas` on the shop's database. Returns what it prints, or why it was refused."""

    def command(*arguments: str, code: int = 0) -> str:
        env = environment(HOLDFAST_SQL__URL=f"sqlite:///{shop.file}", SAGA_DATABASE=str(shop.file))
        done = holdfast("sagas", *arguments, folder=APPS, env=env)
        assert done.returncode == code, done.stderr
        return done.stderr if code else done.stdout

    return command


@pytest.fixture
async def shop(tmp_path: Path, unique: str) -> Shop:
    shop = Shop(tmp_path, unique)
    for statement in ddl(dialect="sqlite"):
        await shop.ask(statement)
    return shop


async def test_a_saga_is_listed_shown_and_drawn(shop: Shop, sagas: Command) -> None:
    async with running(shop.worker):
        await shop.publish(CREATED, "paying")
        await shop.publish(*TO_THE_END[0])

    listed = sagas("list", "orders.fulfilment", "--stage", "reserving")
    assert listed.startswith("o-1  reserving for ") and "due in" in listed
    assert sagas("list", "fulfilment", "--older", "1h") == "0 shown\n"
    [overview] = json.loads(sagas("list", "fulfilment", "--limit", "1", "--json"))
    assert (overview["key"], overview["stage"], overview["reason"]) == (ORDER, "reserving", None)

    shown = sagas("show", "fulfilment", ORDER)
    steps = await shop.ask("select event_id, event_type from holdfast_saga_steps order by version")
    assert all(event_id in shown and event_type in shown for event_id, event_type in steps)
    assert "published charge.customer" in shown and "to undo: refund.payment (not published)" in shown
    details = json.loads(sagas("show", "fulfilment", ORDER, "--json"))
    assert (details["state"]["payment_id"], len(details["steps"])) == ("p-1", 2)

    assert sagas("diagram", "saga_app:worker", "--saga", "fulfilment").startswith(
        "stateDiagram-v2\n    [*] --> paying: order.created\n"
    )


async def test_a_nudge_publishes_the_undo_again_under_its_id_and_it_is_handled_again(
    shop: Shop, sagas: Command
) -> None:
    async with running(shop.worker):
        await shop.publish(CREATED, "paying")
        for event, stage in TO_THE_END:
            await shop.publish(event, stage)
        await eventually(lambda: len(shop.refunds), 1)
        await shop.ask("update holdfast_sagas set due_at = began_at")
        await shop.until("stuck")

        assert "stuck for" in sagas("list", "fulfilment", "--stage", "stuck")
        sagas("nudge", "saga_app:worker", "fulfilment", ORDER, "--why", "the bank was down")
        await eventually(lambda: len(shop.refunds), 2)
        assert shop.refunds[0] == shop.refunds[1]
        assert await shop.ask("select stage, due_at is null from holdfast_sagas") == [("compensating", 0)]

        await shop.publish(f.PaymentRefunded(order_id=ORDER), "cancelled")

    assert "by hand: nudge" in sagas("show", "fulfilment", ORDER)
    assert "the bank was down" in sagas("show", "fulfilment", ORDER)


async def test_an_undo_that_is_skipped_ends_the_saga(shop: Shop, sagas: Command) -> None:
    async with running(shop.worker):
        await shop.publish(CREATED, "paying")
        for event, stage in TO_THE_END:
            await shop.publish(event, stage)

        sagas("skip-undo", "saga_app:worker", "fulfilment", ORDER, "--why", "refunded by hand")

        assert await shop.ask("select stage, undo, ended_at is null from holdfast_sagas") == [("cancelled", "[]", 0)]
        refused = sagas("nudge", "saga_app:worker", "fulfilment", ORDER, "--why", "once more", code=1)
        assert refused == "holdfast: saga fulfilment 'o-1' awaits no undo: it is in stage 'cancelled'\n"


async def test_sagas_of_a_stage_that_is_gone_are_moved_and_go_on(shop: Shop, sagas: Command) -> None:
    async with running(shop.worker):
        await shop.publish(CREATED, "paying")
    await shop.ask("update holdfast_sagas set stage = 'packing'")
    move = ("move", "saga_app:worker", "fulfilment", "--from", "packing", "--why", "packing is gone", "--to")

    assert sagas(*move, "nowhere", code=1).startswith(
        "holdfast: saga fulfilment has no stage 'nowhere' to move to; it has"
    )
    assert sagas(*move, "paying") == "1 moved to paying\n"

    async with running(shop.worker):
        await shop.publish(*TO_THE_END[0])
    assert sagas("list", "fulfilment").startswith("o-1  reserving")


async def test_what_there_is_not_is_said_in_one_line(shop: Shop, sagas: Command) -> None:
    assert sagas("show", "fulfilment", "o-7", code=1) == "holdfast: there is no saga fulfilment 'o-7'\n"
    missing = sagas("nudge", "saga_app:worker", "billing", "o-7", "--why", "x", code=1)
    assert missing == "holdfast: worker 'orders' has no saga 'billing'; it has fulfilment\n"
    assert sagas("diagram", "saga_app:worker", "--saga", "billing", code=1) == missing
    assert "which sagas? give KEY, or --from STAGE" in sagas(
        "move", "saga_app:worker", "fulfilment", "--to", "paying", "--why", "x", code=1
    )
    assert "write a number of seconds, or 15m, 1h, 3d" in sagas("list", "fulfilment", "--older", "soon", code=1)
