"""A worker whose handlers run in transactions: what they change, that the event is handled, and what they publish are
committed together. It also sends what the web application next to it has committed.

    export HOLDFAST_SQL__URL=sqlite:///shop.db
    holdfast sql schema --apply
    holdfast run app:worker

Killed before the commit it has changed nothing, and the event is handled again; killed after it, the event is acked
without a run. With PostgreSQL: SHOP_DATABASE=postgresql+asyncpg://user@host/shop.
"""

from shop import Order, OrderPaid, OrderPlaced, sessions
from sqlalchemy.ext.asyncio import AsyncSession

from holdfast import Context, Worker
from holdfast.sql import Database

database = Database(sessions)
worker = Worker("shop")


@worker.handler(OrderPlaced, within=database)
async def charge(event: OrderPlaced, ctx: Context, session: AsyncSession) -> None:
    order = await session.get_one(Order, event.order_id)
    order.state = "paid"
    await ctx.publish(OrderPaid(order_id=event.order_id))


@worker.handler(OrderPaid, within=database)
async def ship(event: OrderPaid, ctx: Context, session: AsyncSession) -> None:
    order = await session.get_one(Order, event.order_id)
    order.state = "shipped"
    ctx.log.info("order.shipped", order=event.order_id)
