"""Receipts: what workers report of replayed letters."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from ..broker import Binding, Broker, Delivery, Exchange, Queue, Topology
from ..events import RECEIPTS, read_receipt
from .operations import Journal

_KEPT = 7 * 86_400_000  # milliseconds that receipts wait for a tool that went away


@asynccontextmanager
async def receiving(broker: Broker, operation: str, journal: Journal, tell: Callable[[], None]) -> AsyncIterator[None]:
    """Receipts go to the journal; those that came while nobody listened are there when this begins."""
    queue = Queue(f"{RECEIPTS}.{operation}", {"x-queue-type": "classic", "x-expires": _KEPT})
    await broker.declare(Topology((Exchange(RECEIPTS),), (queue,), (Binding(RECEIPTS, queue.name, operation),)))
    inbox: asyncio.Queue[Delivery] = asyncio.Queue()
    waiting = await broker.count(queue.name)
    left = waiting.ready if waiting else 0
    heard = asyncio.Event()

    async def hear() -> None:
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

    consumer = await broker.consume(queue.name, prefetch=500, on_delivery=inbox.put_nowait)
    hearing = asyncio.create_task(hear(), name=f"receipts of {operation}")
    hearing.add_done_callback(lambda ended: heard.set())
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
