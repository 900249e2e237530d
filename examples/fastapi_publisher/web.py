"""A publisher inside FastAPI: one for the whole process, opened and closed with the application.

    pip install fastapi uvicorn
    uvicorn web:app
    curl --json '{"order_id": "o-1", "total": "9.50"}' --header 'Idempotency-Key: 5f0c' localhost:8000/orders

Any worker that handles `order.created` gets it, that of examples/worker for instance.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from hashlib import sha256
from typing import Annotated, TypedDict

from fastapi import Depends, FastAPI, Header, HTTPException, Request

from holdfast import Event, Publisher, PublishError, PublishTimeout


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
async def create(
    order: OrderCreated,
    publisher: Annotated[Publisher, Depends(the_publisher)],
    idempotency_key: Annotated[str | None, Header(max_length=100)] = None,
) -> dict[str, str]:
    """202 once the broker has it on disk and in a queue.

    A client that had no answer asks again with the same `Idempotency-Key`, and whichever of the two arrives second is
    not handled again. The event's id is made of the key and of the whole order: a client that uses the key of another
    order makes another event, and cannot stand in its way. (Where clients log in, put the client's id into it as well.)
    """
    event_id = None
    if idempotency_key is not None:
        event_id = sha256(f"{idempotency_key}\n{order.model_dump_json()}".encode()).hexdigest()
    try:
        metadata = await publisher.publish(order, event_id=event_id)
    except PublishTimeout as error:  # it may be in a queue or not: ask again
        raise HTTPException(504, str(error)) from None
    except PublishError as error:  # it is in no queue
        raise HTTPException(503, str(error)) from None
    return {"event_id": metadata.event_id}
