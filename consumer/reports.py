"""What a worker says of itself, for the tools that look after dead letters. Nothing depends on its arriving."""

import json
from collections.abc import Iterable

from ..broker import REGISTRY, Broker
from ..events import HoldfastError, Message, Receipt, Unroutable, receipt_message, replay_of, uuid7
from ..telemetry import Emit, ReportLost
from .failure import describe_failure, summary
from .handler import HandlerSpec
from .job import Job
from .outcome import Ack, DeadLetter, Decision, GiveBack, Postpone

_PATIENCE = 5.0


async def announce(broker: Broker, worker: str, handlers: Iterable[HandlerSpec], emit: Emit) -> None:
    """Leave the names of the worker's queues where dead-letter tools look for them."""
    told = {"worker": worker, "queues": {spec.queue: spec.name for spec in handlers}}
    message = Message(json.dumps(told).encode(), "", REGISTRY, message_id=uuid7(), content_type="application/json")
    await _tell(broker, message, emit)


async def report(broker: Broker, job: Job, decision: Decision, emit: Emit) -> None:
    """Tell whoever replayed this dead letter what became of it. Of any other message there is nothing to tell."""
    if (replayed := replay_of(job.delivery.message.headers)) is None:
        return
    attempt = job.history.attempt
    match decision:
        case Ack(settled):
            receipt = Receipt(*replayed, settled, attempt)
        case Postpone(_, error) if error is not None:
            receipt = Receipt(*replayed, "postponed", attempt, summary(error), describe_failure(error).fingerprint)
        case DeadLetter(_, error):
            receipt = Receipt(*replayed, "dead_lettered", attempt, summary(error), describe_failure(error).fingerprint)
        case Postpone() | GiveBack():
            return
    await _tell(broker, receipt_message(receipt), emit)


async def _tell(broker: Broker, message: Message, emit: Emit) -> None:
    try:
        await broker.publish(message, timeout=_PATIENCE)
    except Unroutable:  # nobody listens
        pass
    except HoldfastError as error:
        emit(ReportLost(str(error)))
