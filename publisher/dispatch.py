"""From an envelope to the message that is published: at once, or through the delay ladder."""

from ..broker import ladder
from ..config import Settings
from ..events import Envelope, Message, PublishError, TooLarge, headers, in_form, to_message


def message_for(envelope: Envelope, settings: Settings, delay: float | None) -> Message:
    """Return the message for one publish of `envelope`, `delay` seconds from now (None or 0: at once).

    Raises `TooLarge`, and `PublishError` for a delay that is not within 0 and the longest one allowed, or metadata that
    hold half a surrogate pair.
    """
    exchange, form, most = settings.broker.exchange, settings.publisher.format, settings.worker.max_body
    kind = envelope.metadata.event_type
    if form != "plain":
        try:
            envelope = in_form(envelope, form)
        except UnicodeEncodeError:
            raise PublishError(
                f"{kind!r}: its metadata hold half a surrogate pair, which UTF-8 has no form for"
            ) from None
    if len(envelope.body) > most:
        raise TooLarge(f"{kind}: the body has {len(envelope.body)} bytes; HOLDFAST_WORKER__MAX_BODY allows {most}")
    if not delay:
        return to_message(envelope, exchange=exchange)
    if not 0 < delay <= settings.broker.max_delay:
        raise PublishError(
            f"{kind}: delay={delay!r} s is not within 0 and HOLDFAST_BROKER__MAX_DELAY={settings.broker.max_delay:g}"
        )
    origin = {headers.EXCHANGE: exchange, headers.ROUTING_KEY: kind}
    level, key, levels = ladder.address(delay, ladder.to_listeners(kind))
    return to_message(envelope, exchange=level, routing_key=key, extra=levels | origin)
