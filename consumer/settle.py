"""Executing a decision. Nothing leaves its queue before its outcome is durable: the ack is the last step, and here."""

import asyncio
import random

from ..broker import Broker, Delivery
from ..events import Message, PublishError
from ..telemetry import CopyHeld, Emit
from .outcome import Decision, GiveBack

_LONGEST_HOLD = 30.0


async def publish_copy(broker: Broker, copy: Message, *, queue: str, event_id: str, emit: Emit) -> None:
    """Return once the copy is confirmed and routed. Until then the original is held and the copy tried again."""
    failures = 0
    while True:
        try:
            await broker.publish(copy, timeout=None)
            return
        except PublishError as error:
            pause = min(_LONGEST_HOLD, 0.5 * 2**failures) * random.uniform(0.5, 1.0)
            failures = min(failures + 1, 10)
            emit(CopyHeld(queue, event_id, str(error), pause))
            await asyncio.sleep(pause)


async def settle(delivery: Delivery, decision: Decision) -> bool:
    """Give the delivery back, or, its outcome being durable, ack it. False where it is stale."""
    if isinstance(decision, GiveBack):
        return await delivery.consumer.give_back(delivery)
    return await delivery.consumer.ack(delivery)
