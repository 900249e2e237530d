"""A ledger with thousands of events in it, as an earlier owner may leave one."""

import asyncio
from collections.abc import Iterable

from holdfast import Event
from holdfast.broker import Broker, ledger_queue
from holdfast.consumer.ordering.ledger import entry_headers
from holdfast.events import Message, seal, to_message


def parked(queue: str, event: Event, key: str, position: int) -> Message:
    """The entry of an event that waits for nothing but an owner."""
    entry = entry_headers("parked", key=key, epoch=0, position=position, revision=1)
    envelope = seal(event, source="tests", key=key)
    return to_message(envelope, exchange="", routing_key=ledger_queue(queue), extra=entry)


async def fill_ledger(broker: Broker, entries: Iterable[Message]) -> None:
    """Publish entries in their order, and wait for their confirms together."""
    await asyncio.gather(*(broker.publish(entry, timeout=60) for entry in entries))
