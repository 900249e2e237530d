"""The demo's order system: three workers that listen to the same events independently.

`payments` charges each order and publishes what came of it, `inventory` reserves stock in a blocking function,
`notifications` tells the customer. Some of them fail at first; the cards of one bank cannot be charged until that is
fixed.
"""

import asyncio
import time
from pathlib import Path

from ... import Context, Event, Retry, Worker, exponential
from ...config import environment

EXCHANGE_OF_THE_DEMO = "holdfast.demo"

fixed = Path(environment().get("DEMO_BANK_FIXED", "bank-is-fixed"))
"""Once this file is there, the broken bank's cards can be charged."""


def has_broken_bank(order: int) -> bool:
    return order % 25 == 13


def is_fixed() -> bool:
    return fixed.exists()


class CardNetworkBusy(Exception):
    """Goes away by itself."""


class BankIsAway(Exception):
    """Does not."""


class OrderCreated(Event, type="order.created", key="order"):
    order: int
    total: float


class PaymentProcessed(Event, type="payment.processed", key="order"):
    order: int


class PaymentFailed(Event, type="payment.failed", key="order"):
    order: int
    reason: str


payments = Worker("demo.payments")
inventory = Worker("demo.inventory")
notifications = Worker("demo.notifications")
WORKERS = {"payments": payments, "inventory": inventory, "notifications": notifications}


@payments.handler(OrderCreated, retry=Retry(attempts=4, backoff=exponential(0.25, jitter=False)), concurrency=8)
async def charge(event: OrderCreated, ctx: Context) -> None:
    await asyncio.sleep(0.08)
    if has_broken_bank(event.order) and not is_fixed():
        raise BankIsAway(f"order {event.order}: the bank does not know its own card")
    if event.order % 10 == 3 and ctx.attempt == 1:
        raise CardNetworkBusy("try again")
    if event.order % 17 == 0:
        await ctx.publish(PaymentFailed(order=event.order, reason="insufficient funds"))
    else:
        await ctx.publish(PaymentProcessed(order=event.order))
    ctx.log.info("done", order=event.order)


@inventory.handler(OrderCreated, retry=Retry(backoff=exponential(0.5)))
def reserve(event: OrderCreated, ctx: Context) -> None:
    time.sleep(0.01)
    if event.order % 8 == 5 and ctx.attempt < 3:
        raise TimeoutError("the warehouse does not answer")
    ctx.log.info("done", order=event.order)


@notifications.handler(PaymentProcessed, PaymentFailed)
async def tell(event: PaymentProcessed | PaymentFailed, ctx: Context) -> None:
    ctx.log.info("done", order=event.order)
