"""The service of the inventory: it reserves what was ordered, and releases it."""

from shop import ReleaseStock, ReserveStock, StockReserved

from holdfast import Context, Worker

worker = Worker("inventory")


@worker.handler(ReserveStock)
async def reserve(event: ReserveStock, ctx: Context) -> None:
    ctx.log.info("reserved", order=event.order_id)
    await ctx.publish(StockReserved(order_id=event.order_id))


@worker.handler(ReleaseStock)
async def release(event: ReleaseStock, ctx: Context) -> None:
    ctx.log.info("released", order=event.order_id)
