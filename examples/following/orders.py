"""Two services in one worker: an order is paid, and its confirmation is mailed.

holdfast run orders:worker
"""

import structlog

from holdfast import Context, Event, Worker


class OrderCreated(Event, type="order.created"):
    order_id: str


class OrderPaid(Event, type="order.paid"):
    order_id: str


worker = Worker("orders")
log = structlog.get_logger()


@worker.handler(OrderCreated)
async def charge(event: OrderCreated, ctx: Context) -> None:
    await ctx.publish(OrderPaid(order_id=event.order_id))


@worker.handler(OrderPaid)
async def confirm(event: OrderPaid) -> None:
    log.info("confirmation.mailed", order=event.order_id)
