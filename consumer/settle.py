"""Executing a decision. Nothing leaves its queue before its outcome is durable: the ack is the last step, and here."""

import asyncio
import math
import random
from collections.abc import Iterable

from ..broker import Broker, Delivery
from ..events import Message, NotPermitted, PublishError, PublishRefused
from ..publisher import send
from ..telemetry import CopyHeld, Emit, Spans
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


async def publish_outbox(
    broker: Broker, outbox: Iterable[Message], *, patience: float, emit: Emit, spans: Spans
) -> None:
    """Return once all are confirmed. What the broker refuses is tried again, for `patience` seconds from then on: a
    queue that elects its leader refuses for a moment, and another run of the handler costs more. Raises `PublishError`.

    The ids are derived: should the handler run again, it publishes the same."""
    loop = asyncio.get_running_loop()
    last_try, pause = math.inf, 0.1
    for message in outbox:
        while True:
            try:
                await send(broker, message, timeout=None, emit=emit, spans=spans)
                break
            except PublishRefused as error:
                last_try = min(last_try, (now := loop.time()) + patience)
                if isinstance(error, NotPermitted) or now > last_try:
                    raise
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(1.0, 2 * pause)


async def settle(delivery: Delivery, decision: Decision) -> bool:
    """Give the delivery back, or, its outcome being durable, ack it. False where it is stale."""
    if isinstance(decision, GiveBack):
        return await delivery.consumer.give_back(delivery)
    return await delivery.consumer.ack(delivery)
