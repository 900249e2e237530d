"""A saga and all who take part in it, in one PostgreSQL database with a ledger; a process dies once at `DIE_AT`, and
SIGUSR2 moves its time of day by two hours where `HOURS_OFF` is set.

An order whose number is divisible by 5 cannot be paid; of the others, one with remainder 1 is paid too late, and one
with remainder 2 cannot be shipped.
"""

import os
import signal
import sys
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

from sqlalchemy import event as hear
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from holdfast import Context, Event, Handler, Worker
from holdfast.sagas import Saga, Stage, Step, begins, late, on
from holdfast.sql import Database

SCHEMA = os.environ.get("HOLDFAST_SQL__SCHEMA", "holdfast")
engine = create_async_engine(os.environ.get("LEDGER_URL", "postgresql+asyncpg://localhost/ledger"), pool_size=8)
database = Database(engine)


class OrderPlaced(Event, type="arena.order.placed", key="order"):
    order: int


class Charge(Event, type="arena.charge", key="order"):
    order: int


class Paid(Event, type="arena.paid", key="order"):
    order: int


class Unpaid(Event, type="arena.unpaid", key="order"):
    order: int


class Ship(Event, type="arena.ship", key="order"):
    order: int


class Shipped(Event, type="arena.shipped", key="order"):
    order: int


class NotShipped(Event, type="arena.not.shipped", key="order"):
    order: int


class Refund(Event, type="arena.refund", key="order"):
    order: int


class Refunded(Event, type="arena.refunded", key="order"):
    order: int


class Order(Saga, key="order", undo={Refund: Refunded}):
    order: int

    paying = Stage(limit=timedelta(seconds=3))
    shipping = Stage(limit=timedelta(minutes=10))
    shipped = Stage(end=True)
    cancelled = Stage(compensated=True)

    @begins(OrderPlaced, to=paying)
    @staticmethod
    def begin(event: OrderPlaced, step: Step) -> "Order":
        step.publish(Charge(order=event.order))
        return Order(order=event.order)

    @on(Paid, at=paying, to=shipping)
    def pay(self, event: Paid, step: Step) -> None:
        step.undo_by(Refund(order=self.order), until=Refunded)
        step.publish(Ship(order=self.order))

    unpaid = on(Unpaid, at=paying, to=cancelled)
    too_late = late(paying, to=cancelled)
    arrive = on(Shipped, at=shipping, to=shipped)

    @on(NotShipped, at=shipping)
    def fail(self, event: NotShipped, step: Step) -> None:
        step.compensate("not shipped")

    @late(shipping)
    def lose(self, step: Step) -> None:
        step.compensate("lost")

    @on(Paid, at=cancelled)
    def refund(self, event: Paid, step: Step) -> None:
        step.publish(Refund(order=self.order))


def die(arrow: str) -> None:
    """End this process as a power cut would, the first time that it comes here."""
    if os.environ.get("DIE_AT") == arrow and not (died := Path(os.environ["DIED"])).exists():
        died.touch()
        os.kill(os.getpid(), signal.SIGKILL)


@hear.listens_for(engine.sync_engine, "after_cursor_execute")
def executed(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
    if statement.startswith("with entered"):
        die("the saga is locked")
    if statement.startswith("with changed"):
        connection.info["arrow"] = "the step is written"
        die("the step is written")
    if f"update {SCHEMA}.sagas set due_at = null" in statement and cursor.rowcount:
        connection.info["arrow"] = "the limit is cleared"
        die("the limit is cleared")


@hear.listens_for(engine.sync_engine, "commit")
def committing(connection: Any) -> None:
    arrow = connection.info.pop("arrow", None)
    if arrow == "the step is written":
        die("the commit of a step is sent")
    if arrow == "the limit is cleared":
        die("the commit of a limit is sent")


class TimeOfDay(datetime):
    """The time of day, off by some hours; SIGUSR2 moves it back if it is ahead, else forward."""

    off = timedelta(hours=int(os.environ.get("HOURS_OFF", "0")))

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
        return datetime.now(tz) + cls.off

    @classmethod
    def move(cls, *_: Any) -> None:
        cls.off += timedelta(hours=-2 if cls.off > timedelta() else 2)


if "HOURS_OFF" in os.environ:
    for name, module in [*sys.modules.items()]:
        if name.startswith("holdfast.") and getattr(module, "datetime", None) is datetime:
            module.datetime = TimeOfDay  # type: ignore[attr-defined]
    signal.signal(signal.SIGUSR2, TimeOfDay.move)


def after_the_commit(handler: Handler) -> Handler:
    async def call(event: Any, ctx: Context) -> None:
        await handler(event, ctx)
        if isinstance(event, OrderPlaced | Paid | NotShipped | Refunded):
            die("the step is committed")

    return call


async def note(connection: AsyncConnection, kind: str, order: int) -> None:
    await connection.execute(text(f"insert into {SCHEMA}.entries values ('{kind}', {order})"))


worker = Worker(f"{SCHEMA}.arena", middleware=[after_the_commit])
worker.include(Order, within=database)


@worker.handler(Charge, within=database)
async def charge(event: Charge, ctx: Context, connection: AsyncConnection) -> None:
    if event.order % 5 == 0:
        await ctx.publish(Unpaid(order=event.order))
        return
    await note(connection, "charged", event.order)
    await ctx.publish(Paid(order=event.order), delay=6 if event.order % 5 == 1 else None)


@worker.handler(Ship, within=database)
async def ship(event: Ship, ctx: Context, connection: AsyncConnection) -> None:
    if event.order % 5 == 2:
        await ctx.publish(NotShipped(order=event.order))
        return
    await note(connection, "shipped", event.order)
    await ctx.publish(Shipped(order=event.order))


@worker.handler(Refund, within=database)
async def give_back(event: Refund, ctx: Context, connection: AsyncConnection) -> None:
    await note(connection, "refunded", event.order)
    await ctx.publish(Refunded(order=event.order))
