"""The second act's order system: a saga takes each order through three services, or leaves no trace of it.

`orders` runs the saga, `payments` charges and refunds, `inventory` reserves and releases, `shipping` ships. One payment
in ten is declined, and one shipment fails.
"""

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from ... import Context, Event, Worker
from ...config import environment
from ...sagas import Saga, Stage, Step, begins, late, on
from ...sql import Database

LOST = 20
"""The order that cannot be shipped."""


def is_declined(order: int) -> bool:
    return order % 10 == 7


class OrderPlaced(Event, type="order.placed", key="order"):
    order: int


class ChargeCustomer(Event, type="charge.customer", key="order"):
    order: int


class PaymentTaken(Event, type="payment.taken", key="order"):
    order: int


class PaymentDeclined(Event, type="payment.declined", key="order"):
    order: int


class RefundPayment(Event, type="refund.payment", key="order"):
    order: int


class PaymentRefunded(Event, type="payment.refunded", key="order"):
    order: int


class ReserveStock(Event, type="reserve.stock", key="order"):
    order: int


class StockReserved(Event, type="stock.reserved", key="order"):
    order: int


class ReleaseStock(Event, type="release.stock", key="order"):
    order: int


class StockReleased(Event, type="stock.released", key="order"):
    order: int


class ShipOrder(Event, type="ship.order", key="order"):
    order: int


class OrderShipped(Event, type="order.shipped", key="order"):
    order: int


class ShippingFailed(Event, type="shipping.failed", key="order"):
    order: int


class Fulfilment(Saga, key="order", undo={RefundPayment: PaymentRefunded, ReleaseStock: StockReleased}):
    """Takes an order to its customer, or leaves no trace of it."""

    order: int

    paying = Stage(limit=timedelta(minutes=15))
    reserving = Stage(limit=timedelta(minutes=15))
    shipping = Stage(limit=timedelta(days=3))
    shipped = Stage(end=True)
    cancelled = Stage(compensated=True)

    @begins(OrderPlaced, to=paying)
    @staticmethod
    def begin(event: OrderPlaced, step: Step) -> "Fulfilment":
        step.publish(ChargeCustomer(order=event.order))
        return Fulfilment(order=event.order)

    @on(PaymentTaken, at=paying, to=reserving)
    def pay(self, event: PaymentTaken, step: Step) -> None:
        step.undo_by(RefundPayment(order=self.order))
        step.publish(ReserveStock(order=self.order))

    decline = on(PaymentDeclined, at=paying, to=cancelled)
    never_paid = late(paying, to=cancelled)

    @on(StockReserved, at=reserving, to=shipping)
    def reserve(self, event: StockReserved, step: Step) -> None:
        step.undo_by(ReleaseStock(order=self.order))
        step.publish(ShipOrder(order=self.order))

    never_reserved = late(reserving, to=cancelled)
    arrive = on(OrderShipped, at=shipping, to=shipped)

    @on(ShippingFailed, at=shipping)
    def fail(self, event: ShippingFailed, step: Step) -> None:
        step.compensate("it could not be shipped")

    @late(shipping)
    def lose(self, step: Step) -> None:
        step.compensate("it was not shipped in time")


def make_workers(database: Database[Any]) -> Mapping[str, Worker]:
    """Return the four workers, whose sagas are in a database."""
    orders, payments = Worker("demo.orders"), Worker("demo.payment")
    inventory, shipping = Worker("demo.stock"), Worker("demo.shipping")
    orders.include(Fulfilment, within=database)

    @payments.handler(ChargeCustomer)
    async def charge(event: ChargeCustomer, ctx: Context) -> None:
        await asyncio.sleep(0.02)
        if is_declined(event.order):
            await ctx.publish(PaymentDeclined(order=event.order))
            return
        await ctx.publish(PaymentTaken(order=event.order))
        ctx.log.info("done", order=event.order)

    @payments.handler(RefundPayment)
    async def refund(event: RefundPayment, ctx: Context) -> None:
        await ctx.publish(PaymentRefunded(order=event.order))
        ctx.log.info("done", order=event.order)

    @inventory.handler(ReserveStock)
    async def reserve(event: ReserveStock, ctx: Context) -> None:
        await ctx.publish(StockReserved(order=event.order))
        ctx.log.info("done", order=event.order)

    @inventory.handler(ReleaseStock)
    async def release(event: ReleaseStock, ctx: Context) -> None:
        await ctx.publish(StockReleased(order=event.order))
        ctx.log.info("done", order=event.order)

    @shipping.handler(ShipOrder)
    async def ship(event: ShipOrder, ctx: Context) -> None:
        await asyncio.sleep(0.05)
        if event.order == LOST:
            await ctx.publish(ShippingFailed(order=event.order))
            return
        await ctx.publish(OrderShipped(order=event.order))
        ctx.log.info("done", order=event.order)

    return {"orders": orders, "payments": payments, "inventory": inventory, "shipping": shipping}


def __getattr__(name: str) -> Worker:
    """Return a worker on the database that `DEMO_ORDERS` names, as `holdfast run` asks for it."""
    url = environment().get("DEMO_ORDERS")
    if name not in ("orders", "payments", "inventory", "shipping") or url is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return make_workers(Database.of_url(url))[name]
