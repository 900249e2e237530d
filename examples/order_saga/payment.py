"""The service of payments: it charges and refunds. Orders of more than 1,000 are declined."""

from shop import ChargeCustomer, PaymentDeclined, PaymentRefunded, PaymentTaken, RefundPayment

from holdfast import Context, Worker

worker = Worker("payment")


@worker.handler(ChargeCustomer)
async def charge(event: ChargeCustomer, ctx: Context) -> None:
    if event.cents > 100_000:
        await ctx.publish(PaymentDeclined(order_id=event.order_id))
        return
    # Here the provider is called, with ctx.event_id as its idempotency key.
    ctx.log.info("charged", order=event.order_id)
    await ctx.publish(PaymentTaken(order_id=event.order_id, payment_id=ctx.event_id))


@worker.handler(RefundPayment)
async def refund(event: RefundPayment, ctx: Context) -> None:
    ctx.log.info("refunded", order=event.order_id, payment=event.payment_id)
    await ctx.publish(PaymentRefunded(order_id=event.order_id))
