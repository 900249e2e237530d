"""Charges what was accepted."""

from holdfast import Context, Retry, Worker, exponential

from .events import InvoicePaid, OrderAccepted

worker = Worker("billing")


@worker.handler(OrderAccepted, retry=Retry(attempts=8, backoff=exponential(2, maximum=600)))
async def charge(event: OrderAccepted, ctx: Context) -> None:
    ctx.log.info("charged", order=event.order_id, cents=event.cents)
    await ctx.publish(InvoicePaid(order_id=event.order_id, email=event.email))
