"""A publisher inside FastAPI: one for the whole process, opened and closed with the application.

    pip install fastapi uvicorn
    uvicorn web:app
    curl --json '{"order_id": "o-1", "total": "9.50"}' localhost:8000/orders

Any worker that handles `order.created` gets it, that of examples/worker for instance.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, TypedDict

from fastapi import Depends, FastAPI, HTTPException, Request

from holdfast import Event, Metadata, Publisher, PublishError, PublishTimeout


class OrderCreated(Event, type="order.created"):
    order_id: str
    total: Decimal


class State(TypedDict):
    publisher: Publisher


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[State]:
    async with Publisher(source="shop") as publisher:
        yield {"publisher": publisher}


def the_publisher(request: Request) -> Publisher:
    found: Publisher = request.state.publisher
    return found


app = FastAPI(lifespan=lifespan)


@app.post("/orders", status_code=202)
async def create(order: OrderCreated, publisher: Annotated[Publisher, Depends(the_publisher)]) -> dict[str, str]:
    """202 once the broker has it on disk and in a queue.

    The order's number is the event's id too: a client that had no answer asks again, and whichever of the two
    arrives second is not handled again.
    """
    metadata = Metadata(f"order-{order.order_id}", "order.created", datetime.now(UTC), source="shop")
    try:
        await publisher.publish(order, metadata=metadata)
    except PublishTimeout as error:  # it may be in a queue or not: ask again
        raise HTTPException(504, str(error)) from None
    except PublishError as error:  # it is in no queue
        raise HTTPException(503, str(error)) from None
    return {"event_id": metadata.event_id}
