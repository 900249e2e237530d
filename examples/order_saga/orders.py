"""The worker of orders: a saga takes each through payment, inventory and shipping, or leaves no trace of it.

    export HOLDFAST_SQL__URL=sqlite:///shop.db
    holdfast sql schema --apply
    holdfast run orders:worker        # and payment:worker, inventory:worker, shipping:worker
    holdfast sagas show fulfilment o-1
    holdfast sagas diagram orders:worker

It also sends what the web application next to it has committed.
"""

from datetime import timedelta

from shop import (
    ChargeCustomer,
    OrderPlaced,
    OrderShipped,
    PaymentDeclined,
    PaymentRefunded,
    PaymentTaken,
    RefundPayment,
    ReleaseStock,
    ReserveStock,
    ShipOrder,
    ShippingFailed,
    StockReserved,
    sessions,
)

from holdfast import Worker
from holdfast.sagas import Saga, Stage, Step, begins, late, on
from holdfast.sql import Database


class Fulfilment(Saga, key="order_id", undo={RefundPayment: PaymentRefunded, ReleaseStock: None}):
    """Takes an order to its customer, or leaves no trace of it."""

    order_id: str

    paying = Stage(limit=timedelta(minutes=15))
    reserving = Stage(limit=timedelta(hours=1))
    shipping = Stage(limit=timedelta(days=3))
    shipped = Stage(end=True)
    cancelled = Stage(compensated=True)

    @begins(OrderPlaced, to=paying)
    @staticmethod
    def begin(event: OrderPlaced, step: Step) -> "Fulfilment":
        step.publish(ChargeCustomer(order_id=event.order_id, cents=event.cents))
        return Fulfilment(order_id=event.order_id)

    @on(PaymentTaken, at=paying, to=reserving)
    def pay(self, event: PaymentTaken, step: Step) -> None:
        step.undo_by(RefundPayment(order_id=self.order_id, payment_id=event.payment_id))
        step.publish(ReserveStock(order_id=self.order_id))

    declined = on(PaymentDeclined, at=paying, to=cancelled)
    never_paid = late(paying, to=cancelled)

    @on(StockReserved, at=reserving, to=shipping)
    def reserve(self, event: StockReserved, step: Step) -> None:
        step.undo_by(ReleaseStock(order_id=self.order_id))
        step.publish(ShipOrder(order_id=self.order_id))

    never_reserved = late(reserving, to=cancelled)
    arrived = on(OrderShipped, at=shipping, to=shipped)

    @on(ShippingFailed, at=shipping)
    def fail(self, event: ShippingFailed, step: Step) -> None:
        step.compensate(f"not shipped: {event.reason}")

    @late(shipping)
    def lose(self, step: Step) -> None:
        step.compensate("not shipped in time")

    @on(PaymentTaken, at=cancelled)
    def pay_too_late(self, event: PaymentTaken, step: Step) -> None:
        step.publish(RefundPayment(order_id=self.order_id, payment_id=event.payment_id))


worker = Worker("orders")
worker.include(Fulfilment, within=Database(sessions))
