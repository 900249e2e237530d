"""From an envelope to the message that is published: at once, or through the delay ladder."""

import math
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from ..broker import REAL, Broker, Clock, Pause, ladder, matches, sleep
from ..config import PublisherSettings, Settings
from ..events import (
    Envelope,
    Message,
    NotConnected,
    NotPermitted,
    PublishError,
    PublishRefused,
    PublishTimeout,
    TooLarge,
    Unroutable,
    check_limits,
    headers,
    in_form,
    to_message,
)
from ..telemetry import Emit, Published, PublishResult, Spans

_AGAIN: Final = Pause(0.1, 1.0)  # between two tries to publish what was refused


def message_for(envelope: Envelope, settings: Settings, delay: float | None) -> Message:
    """Return the message for one publish of `envelope`, `delay` seconds from now (None or 0: at once).

    Raises `TooLarge`, and `PublishError` for a delay that is not within 0 and the longest one allowed, or metadata that
    hold half a surrogate pair.
    """
    exchange, form = settings.broker.exchange, settings.publisher.format
    kind = envelope.metadata.event_type
    if form != "plain":
        try:
            envelope = in_form(envelope, form)
        except UnicodeEncodeError:
            raise PublishError(
                f"{kind!r}: its metadata hold half a surrogate pair, which UTF-8 has no form for"
            ) from None
    if delay or len(envelope.body) > settings.worker.max_body:
        check_limits(envelope, delay, max_body=settings.worker.max_body, max_delay=settings.broker.max_delay)
    if not delay:
        return to_message(envelope, exchange=exchange)
    origin = {headers.EXCHANGE: exchange, headers.ROUTING_KEY: kind}
    level, key, levels = ladder.address(delay, ladder.to_listeners(kind))
    return to_message(envelope, exchange=level, routing_key=key, extra=levels | origin)


async def send(
    broker: Broker,
    message: Message,
    settings: PublisherSettings,
    *,
    timeout: float | None,
    emit: Emit,
    spans: Spans,
    clock: Clock = REAL,
) -> None:
    """Publish one event as `Broker.publish` does, and emit one `Published`, unless it is cancelled. An event that may
    be unrouted raises no `Unroutable`."""
    started = clock.precise()
    try:
        with spans.publish(message) as traced:
            await broker.publish(traced, timeout=timeout)
    except PublishError as error:
        is_dropped = isinstance(error, Unroutable) and _may_be_unrouted(message, settings)
        emit(Published(message.type or "", "dropped" if is_dropped else _result(error), clock.precise() - started))
        if is_dropped:
            return
        raise
    emit(Published(message.type or "", "confirmed", clock.precise() - started))


async def one_by_one(
    publish: Callable[[Message], Awaitable[None]],
    messages: Iterable[Message],
    *,
    patience: float,
    clock: Clock,
    luck: Callable[[], float],
) -> None:
    """Publish messages, each once its predecessor is confirmed. A refused one is tried again, for `patience` seconds
    from the first refusal on: a queue that elects its leader refuses for a moment. Raises `PublishError`."""
    last_try, refusals = math.inf, 0
    for message in messages:
        while True:
            try:
                await publish(message)
                break
            except PublishRefused as error:
                last_try = min(last_try, (now := clock.time()) + patience)
                if isinstance(error, NotPermitted) or now > last_try:
                    raise
            await sleep(clock, _AGAIN.seconds(refusals, luck()))
            refusals += 1


def _may_be_unrouted(message: Message, settings: PublisherSettings) -> bool:
    """Return whether a message that was for the listeners of its type may be dropped where there are none."""
    kind = message.routing_key
    return kind == message.type and any(matches(pattern, kind) for pattern in settings.may_be_unrouted)


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
