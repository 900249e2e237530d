"""A worker: every order is charged, and a receipt follows.

holdfast run app:worker
holdfast publish order.created '{"order_id": "o-1", "total": "9.50"}'
"""

from decimal import Decimal

from holdfast import Context, Event, Reject, Retry, Worker, exponential


class OrderCreated(Event, type="order.created"):
    order_id: str
    total: Decimal


class OrderCharged(Event, type="order.charged"):
    order_id: str
    total: Decimal


class Busy(Exception):
    """The payment service asks us to come again later."""


worker = Worker("billing")


@worker.handler(OrderCreated, timeout=20, retry=Retry(attempts=6, backoff=exponential(1, maximum=300)))
async def charge(event: OrderCreated, ctx: Context) -> None:
    if event.total <= 0:
        raise Reject(f"an order of {event.total} cannot be charged")  # no retry mends it: a dead letter, at once
    await pay(event.order_id, event.total, idempotency_key=ctx.event_id)
    await ctx.publish(OrderCharged(order_id=event.order_id, total=event.total))  # sent once this handler has succeeded


@worker.handler(OrderCharged)
async def receipt(event: OrderCharged, ctx: Context) -> None:
    ctx.log.info("receipt.sent", order=event.order_id, total=str(event.total))


async def pay(order_id: str, total: Decimal, *, idempotency_key: str) -> None:
    """Your payment service goes here. Given the event's id it charges an order once, however often it is asked; what
    it raises is tried again, six times in all, then the message is a dead letter."""
    if total > 10_000:
        raise Busy(order_id)
