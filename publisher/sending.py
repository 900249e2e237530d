"""The sending of one event and the report of the broker's answer. Retry copies and dead letters are not reported."""

import time

from ..broker import Broker
from ..events import Message, NotConnected, PublishError, PublishRefused, PublishTimeout, TooLarge, Unroutable
from ..telemetry import Emit, Published, PublishResult, Spans


async def send(broker: Broker, message: Message, *, timeout: float | None, emit: Emit, spans: Spans) -> None:
    """Publish one event as `Broker.publish` does, and emit one `Published`, unless it is cancelled."""
    started = time.perf_counter()
    try:
        with spans.publish(message) as traced:
            await broker.publish(traced, timeout=timeout)
    except PublishError as error:
        emit(Published(message.type or "", _result(error), time.perf_counter() - started))
        raise
    emit(Published(message.type or "", "confirmed", time.perf_counter() - started))


def _result(error: PublishError) -> PublishResult:
    match error:
        case Unroutable():
            return "unroutable"
        case PublishRefused():
            return "refused"
        case PublishTimeout():
            return "timeout"
        case NotConnected():
            return "not_connected"
        case TooLarge():
            return "too_large"
        case _:
            return "failed"
