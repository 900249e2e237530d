"""A web application that saves an order and publishes its event in one commit, with no connection to a broker.

fastapi dev web.py
curl -X POST localhost:8000/orders/o-1 -H 'content-type: application/json' -d '{"cents": 950}'
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from pydantic import BaseModel
from shop import Order, OrderPlaced, engine, make_tables, sessions

from holdfast.sql import Outbox

outbox = Outbox(source="shop")


class NewOrder(BaseModel):
    cents: int


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    await make_tables()
    yield
    await engine.dispose()


app = FastAPI(lifespan=lifespan)


@app.post("/orders/{order_id}", status_code=202)
async def create(order_id: str, order: NewOrder) -> dict[str, str]:
    async with sessions.begin() as session:
        session.add(Order(id=order_id, cents=order.cents))
        sent = outbox.publish(session, OrderPlaced(order_id=order_id, cents=order.cents))
    return {"event_id": sent.event_id}
