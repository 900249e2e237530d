"""The order system after the change: a total is exact and has a currency. Old events go on being handled."""

from decimal import Decimal

from holdfast import Context, Event, Worker, downcast, upcast


class OrderCreatedV1(Event, type="upgrade.order.created", version=1, key="order_id"):
    order_id: str
    total: float


class OrderCreated(Event, type="upgrade.order.created", version=2, key="order_id"):
    order_id: str
    amount: Decimal
    currency: str


class OrderCharged(Event, type="upgrade.order.charged", key="order_id"):
    order_id: str
    charged: str


@upcast(OrderCreatedV1, OrderCreated)
def say_the_currency(old: OrderCreatedV1) -> OrderCreated:
    return OrderCreated(order_id=old.order_id, amount=Decimal(str(old.total)), currency="EUR")


@downcast(OrderCreated, OrderCreatedV1)
def forget_the_currency(new: OrderCreated) -> OrderCreatedV1:
    if new.currency != "EUR":
        raise ValueError("version 1 knows euros alone; publish other currencies once every consumer is upgraded")
    return OrderCreatedV1(order_id=new.order_id, total=float(new.amount))


worker = Worker("upgrade")


@worker.handler(OrderCreated, publishes=(OrderCharged,))
async def charge(event: OrderCreated, ctx: Context) -> None:
    await ctx.publish(OrderCharged(order_id=event.order_id, charged=f"{event.amount:.2f} {event.currency}"))
