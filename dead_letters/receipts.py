"""Receipts: what workers report of replayed letters."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from ..broker import Binding, Broker, Delivery, Exchange, Queue, Topology
from ..events import RECEIPTS, read_receipt
from .journal import Journal

_KEPT = 7 * 86_400_000  # milliseconds that receipts wait for a tool that went away


def receipt_queue(operation: str) -> str:
    return f"{RECEIPTS}.{operation}"


@asynccontextmanager
async def receiving(broker: Broker, operation: str, journal: Journal, tell: Callable[[], None]) -> AsyncIterator[None]:
    """Receipts go to the journal; those that came while nobody listened are there when this begins."""
    queue = receipt_queue(operation)
    arguments = {"x-queue-type": "classic", "x-expires": _KEPT}
    await broker.declare(
        Topology((Exchange(RECEIPTS),), (Queue(queue, arguments),), (Binding(RECEIPTS, queue, operation),))
    )
    inbox: asyncio.Queue[Delivery] = asyncio.Queue()
    waiting = await broker.count(queue)
    left = waiting.ready if waiting else 0
    heard = asyncio.Event()

    async def hear() -> None:
        try:
            await read_all()
        finally:
            heard.set()

    async def read_all() -> None:
        nonlocal left
        while True:
            if left <= 0:
                heard.set()
            deliveries = [await inbox.get()]
            while not inbox.empty():
                deliveries.append(inbox.get_nowait())
            receipts = [receipt for one in deliveries if (receipt := read_receipt(one.message)) is not None]
            journal.hear([receipt for receipt in receipts if receipt.replay == operation])
            tell()
            for delivery in deliveries:
                await delivery.consumer.ack(delivery)
            left -= len(deliveries)

    consumer = await broker.consume(queue, prefetch=500, on_delivery=inbox.put_nowait)
    hearing = asyncio.create_task(hear(), name=f"receipts of {operation}")
    try:
        async with asyncio.timeout(30):
            await heard.wait()
        if hearing.done():
            hearing.result()
        yield
        if hearing.done():  # with an error, as when the disk of the journal is full: nothing was heard since
            hearing.result()
    finally:
        hearing.cancel()
        await asyncio.gather(hearing, return_exceptions=True)
        await consumer.stop(close=True)
