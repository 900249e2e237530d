"""A page that says of an order that its confirmation is on its way, and then that it has arrived.

pip install fastapi uvicorn
uvicorn web:app

Then open http://localhost:8000/. With no worker running the confirmation stays on its way; `holdfast run orders:worker`
brings it.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, TypedDict

from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, StreamingResponse
from orders import OrderCreated

from holdfast import Following, Progress, Publisher


class State(TypedDict):
    publisher: Publisher
    following: Following


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[State]:
    async with Publisher(source="shop") as publisher, Following() as following:
        yield {"publisher": publisher, "following": following}


def the_publisher(request: Request) -> Publisher:
    publisher: Publisher = request.state.publisher
    return publisher


def the_following(request: Request) -> Following:
    following: Following = request.state.following
    return following


Publishing = Annotated[Publisher, Depends(the_publisher)]
Follow = Annotated[Following, Depends(the_following)]
PAGE = (Path(__file__).parent / "page.html").read_text()
app = FastAPI(lifespan=lifespan)


@app.get("/")
async def page() -> HTMLResponse:
    return HTMLResponse(PAGE)


@app.post("/orders", status_code=202)
async def create(order: OrderCreated, publisher: Publishing, following: Follow) -> Response:
    """201 where all that had to happen has happened within a moment; else 202, with the address of its progress."""
    sent = await publisher.publish(order, follow=True)
    progress = await following.until_done(sent.correlation_id, within=0.5)
    if progress.done:
        return Response(status_code=201)
    return JSONResponse({"progress": f"/progress/{sent.correlation_id}"}, status_code=202)


@app.get("/progress/{request}")
async def look(request: str, following: Follow) -> dict[str, Any]:
    """Where clients log in, look up here whether the order is theirs."""
    return asdict(await following.progress(request))


@app.get("/progress/{request}/events")
async def watch(request: str, following: Follow) -> StreamingResponse:
    """Server-sent events: one for each change, the last one done or failed."""
    return StreamingResponse(lines(following.watch(request)), media_type="text/event-stream")


async def lines(changes: AsyncIterator[Progress]) -> AsyncIterator[str]:
    async for progress in changes:
        yield f"data: {json.dumps(asdict(progress), default=str)}\n\n"
