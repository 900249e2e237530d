"""From an envelope to the message that is published: at once, or through the delay ladder."""

from dataclasses import replace

from ..broker import ladder
from ..config import Settings
from ..events import Envelope, Message, PublishError, TooLarge, headers, in_form, to_message


def message_for(envelope: Envelope, settings: Settings, delay: float | None) -> Message:
    """The message for one publish of `envelope`, `delay` seconds from now (None or 0: at once).

    Raises `TooLarge`, and `PublishError` for a delay outside 0 and the longest one allowed or a text that is none.
    """
    broker = settings.broker
    try:
        formed = in_form(envelope, settings.publisher.format)
    except UnicodeEncodeError:
        kind = envelope.metadata.event_type
        raise PublishError(f"{kind!r}: its metadata hold half a surrogate pair, which UTF-8 has no form for") from None
    message = to_message(formed, exchange=broker.exchange)
    if len(message.body) > settings.worker.max_body:
        raise TooLarge(
            f"{message.type}: the body has {len(message.body)} bytes; HOLDFAST_WORKER__MAX_BODY allows "
            f"{settings.worker.max_body}"
        )
    if not delay:
        return message
    if not 0 < delay <= broker.max_delay:
        raise PublishError(
            f"{message.type}: delay={delay!r} s is not within 0 and HOLDFAST_BROKER__MAX_DELAY={broker.max_delay:g}"
        )
    exchange, key = ladder.address(delay, ladder.to_listeners(message.routing_key))
    origin = {headers.EXCHANGE: message.exchange, headers.ROUTING_KEY: message.routing_key}
    return replace(message, exchange=exchange, routing_key=key, headers={**message.headers, **origin})
