"""A worker that hangs while it is imported, or while its lifespan enters or leaves."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from holdfast import Event, Worker

HANGS = "nowhere"


class Order(Event, type="order"):
    order: str


async def pass_by(where: str) -> None:
    print(where, flush=True)
    if where == HANGS:
        try:
            await asyncio.Event().wait()
        finally:
            print("cancelled", flush=True)


@asynccontextmanager
async def lifespan() -> AsyncIterator[None]:
    await pass_by("entering")
    yield
    await pass_by("leaving")


worker = Worker("hesitating", lifespan=lifespan)


@worker.handler(Order)
async def handle(event: Order) -> None: ...


print("importing", flush=True)
while HANGS == "importing":
    time.sleep(0.05)
