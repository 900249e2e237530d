"""Writes to customers: one handler, and so one queue, for each letter. If one of them fails, the other goes on."""

from holdfast import Context, Worker

from .events import InvoicePaid, OrderAccepted

worker = Worker("mail")


@worker.handler(OrderAccepted)
async def confirmation(event: OrderAccepted, ctx: Context) -> None:
    ctx.log.info("mail.sent", to=event.email, letter="confirmation")


@worker.handler(InvoicePaid)
async def receipt(event: InvoicePaid, ctx: Context) -> None:
    ctx.log.info("mail.sent", to=event.email, letter="receipt")
