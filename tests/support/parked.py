"""A ledger with thousands of events in it, as an earlier owner may leave one."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from running import a_broker

from holdfast import Event, Settings, Worker
from holdfast.broker import ledger_queue
from holdfast.consumer.ordering.ledger import entry_headers
from holdfast.events import Message, seal, to_message


def parked(queue: str, event: Event, key: str, position: int) -> Message:
    """The entry of an event that waits for nothing but an owner."""
    entry = entry_headers("parked", key=key, epoch=0, position=position, revision=1)
    envelope = seal(event, source="tests", key=key)
    return to_message(envelope, exchange="", routing_key=ledger_queue(queue), extra=entry)


@asynccontextmanager
async def a_ledger(settings: Settings, worker: Worker, entries: Iterable[Message]) -> AsyncIterator[None]:
    """The queues of a worker, with these entries in its ledger."""
    async with a_broker(settings) as broker:
        await broker.declare(worker.topology())
        await asyncio.gather(*(broker.publish(entry, timeout=60) for entry in entries))
        yield
