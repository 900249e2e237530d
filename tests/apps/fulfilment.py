"""The saga of the tests: an order is paid, packed and shipped, or leaves no trace."""

from datetime import timedelta
from decimal import Decimal

from holdfast import Event
from holdfast.sagas import Saga, Stage, Step, begins, late, on


class OrderCreated(Event, type="order.created", key="order_id"):
    order_id: str
    total: Decimal


class ChargeCustomer(Event, type="charge.customer", key="order_id"):
    order_id: str
    total: Decimal


class PaymentProcessed(Event, type="payment.processed", key="order_id"):
    order_id: str
    payment_id: str


class PaymentFailed(Event, type="payment.failed", key="order_id"):
    order_id: str


class RefundPayment(Event, type="refund.payment", key="order_id"):
    order_id: str
    payment_id: str


class PaymentRefunded(Event, type="payment.refunded", key="order_id"):
    order_id: str


class ReserveStock(Event, type="reserve.stock", key="order_id"):
    order_id: str


class StockReserved(Event, type="stock.reserved", key="order_id"):
    order_id: str


class ReleaseStock(Event, type="release.stock", key="order_id"):
    order_id: str


class ShipOrder(Event, type="ship.order", key="order_id"):
    order_id: str


class OrderShipped(Event, type="order.shipped", key="order_id"):
    order_id: str


class ShippingFailed(Event, type="shipping.failed", key="order_id"):
    order_id: str
    reason: str


class Fulfilment(Saga, key="order_id", undo={RefundPayment: PaymentRefunded, ReleaseStock: None}):
    """Takes an order to its customer, or leaves no trace of it."""

    order_id: str
    total: Decimal
    payment_id: str | None = None

    paying = Stage(limit=timedelta(minutes=15))
    reserving = Stage(limit=timedelta(hours=1))
    shipping = Stage(limit=timedelta(days=3))
    shipped = Stage(end=True)
    cancelled = Stage(compensated=True)

    @begins(OrderCreated, to=paying)
    @staticmethod
    def begin(event: OrderCreated, step: Step) -> "Fulfilment":
        step.publish(ChargeCustomer(order_id=event.order_id, total=event.total))
        return Fulfilment(order_id=event.order_id, total=event.total)

    @on(PaymentProcessed, at=paying, to=reserving)
    def paid(self, event: PaymentProcessed, step: Step) -> None:
        self.payment_id = event.payment_id
        step.undo_by(RefundPayment(order_id=self.order_id, payment_id=event.payment_id), until=PaymentRefunded)
        step.publish(ReserveStock(order_id=self.order_id))

    unpaid = on(PaymentFailed, at=paying, to=cancelled)
    never_paid = late(paying, to=cancelled)

    @on(StockReserved, at=reserving, to=shipping)
    def reserved(self, event: StockReserved, step: Step) -> None:
        step.undo_by(ReleaseStock(order_id=self.order_id))
        step.publish(ShipOrder(order_id=self.order_id))

    never_reserved = late(reserving, to=cancelled)
    arrived = on(OrderShipped, at=shipping, to=shipped)

    @on(ShippingFailed, at=shipping)
    def failed(self, event: ShippingFailed, step: Step) -> None:
        step.compensate(f"not shipped: {event.reason}")

    @late(shipping)
    def lost(self, step: Step) -> None:
        step.compensate("not shipped in time")

    @on(PaymentProcessed, at=cancelled)
    def paid_too_late(self, event: PaymentProcessed, step: Step) -> None:
        step.publish(RefundPayment(order_id=self.order_id, payment_id=event.payment_id))
