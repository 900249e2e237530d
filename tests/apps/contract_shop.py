"""A shop whose events have unions, references, an older version and an upcast (`holdfast events`)."""

from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from holdfast import Event, Worker, upcast


class Card(BaseModel):
    kind: Literal["card"]
    number: str


class Cash(BaseModel):
    kind: Literal["cash"]


class OrderV1(Event, type="order.created"):
    order_id: str


class Order(Event, type="order.created", version=2, key="order_id"):
    """An order was <created>."""

    order_id: str
    total: Decimal = Field(description="in euros & cents")
    payment: Annotated[Card | Cash, Field(discriminator="kind")]
    lines: list["Line"] = Field(default=[])


class Line(BaseModel):
    article: str
    parts: list["Line"] = []


class Charged(Event, type="order.charged"):
    order_id: str


@upcast(OrderV1, Order)
def add_total(old: OrderV1) -> Order:
    return Order(order_id=old.order_id, total=Decimal(0), payment=Cash(kind="cash"))


worker = Worker("shop")


@worker.handler(Order, publishes=(Charged,))
async def charge(event: Order) -> None: ...


@worker.handler(Charged, "audit.*", "audit.#")
async def note(event: Charged | dict[str, Any]) -> None: ...
