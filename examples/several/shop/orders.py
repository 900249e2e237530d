"""Takes orders."""

from holdfast import Context, Reject, Worker

from .events import OrderAccepted, OrderPlaced

worker = Worker("orders")


@worker.handler(OrderPlaced)
async def accept(event: OrderPlaced, ctx: Context) -> None:
    if event.cents <= 0:
        raise Reject("an order has to cost something")
    await ctx.publish(OrderAccepted(order_id=event.order_id, email=event.email, cents=event.cents))
