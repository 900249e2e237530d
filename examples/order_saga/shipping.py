"""The service of shipping. Orders whose id begins with `far` go where it does not."""

from shop import OrderShipped, ShipOrder, ShippingFailed

from holdfast import Context, Worker

worker = Worker("shipping")


@worker.handler(ShipOrder)
async def ship(event: ShipOrder, ctx: Context) -> None:
    if event.order_id.startswith("far"):
        await ctx.publish(ShippingFailed(order_id=event.order_id, reason="too far"))
        return
    ctx.log.info("shipped", order=event.order_id)
    await ctx.publish(OrderShipped(order_id=event.order_id))
