"""Receipts of replays, and the registry of queues: what a worker publishes for the tools that look after dead letters.
Nothing depends on their arrival."""

import json
from collections.abc import Iterable

from ..broker import REGISTRY, Broker
from ..events import HoldfastError, Incoming, Message, Receipt, Unroutable, receipt_message, replay_of, uuid7
from ..telemetry import Emit, ReportLost
from .failure import describe_failure, summary
from .handler import HandlerSpec
from .outcome import Ack, DeadLetter, Ending, GiveBack, Postpone

_PATIENCE = 5.0


async def announce(broker: Broker, worker: str, handlers: Iterable[HandlerSpec], emit: Emit) -> None:
    """Publish the names of the worker's queues to the registry, where dead-letter tools look for them."""
    names = {"worker": worker, "queues": {spec.queue: spec.name for spec in handlers}}
    message = Message(json.dumps(names).encode(), "", REGISTRY, message_id=uuid7(), content_type="application/json")
    await _publish(broker, message, emit)


async def send_receipt(broker: Broker, incoming: Incoming, ending: Ending, emit: Emit) -> None:
    """Report to whoever replayed this dead letter how it ended. For any other message nothing is sent."""
    if (replayed := replay_of(incoming.message.headers)) is None:
        return
    attempt = incoming.history.attempt
    match ending:
        case Ack(settled):
            receipt = Receipt(*replayed, settled, attempt)
        case Postpone(_, error) if error is not None:
            receipt = Receipt(*replayed, "postponed", attempt, summary(error), describe_failure(error).fingerprint)
        case DeadLetter(_, error):
            receipt = Receipt(*replayed, "dead_lettered", attempt, summary(error), describe_failure(error).fingerprint)
        case Postpone() | GiveBack():
            return
    await _publish(broker, receipt_message(receipt), emit)


async def _publish(broker: Broker, message: Message, emit: Emit) -> None:
    try:
        await broker.publish(message, timeout=_PATIENCE)
    except Unroutable:  # nobody listens
        pass
    except HoldfastError as error:
        emit(ReportLost(str(error)))
