"""The order system before the change: a total is a plain number, in euros."""

from holdfast import Context, Event, Worker


class OrderCreated(Event, type="upgrade.order.created", key="order_id"):
    order_id: str
    total: float


class OrderCharged(Event, type="upgrade.order.charged", key="order_id"):
    order_id: str
    charged: str


worker = Worker("upgrade")


@worker.handler(OrderCreated, publishes=(OrderCharged,))
async def charge(event: OrderCreated, ctx: Context) -> None:
    await ctx.publish(OrderCharged(order_id=event.order_id, charged=f"{event.total:.2f} EUR"))
