"""What the workers tell each other: the contract between them. A new field needs a default."""

from holdfast import Event


class OrderPlaced(Event, type="order.placed", key="order_id"):
    order_id: str
    email: str
    cents: int


class OrderAccepted(Event, type="order.accepted", key="order_id"):
    order_id: str
    email: str
    cents: int


class InvoicePaid(Event, type="invoice.paid", key="order_id"):
    order_id: str
    email: str
