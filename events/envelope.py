"""Envelopes: an event with its metadata, on its way to becoming a message."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from . import headers as h
from .codec import encode
from .errors import PublishError, TooLarge
from .event import Event
from .ids import check_id, uuid7
from .message import Headers, Message
from .metadata import Envelope, Metadata


def seal(
    event: Event,
    *,
    source: str,
    cause: Metadata | None = None,
    caused_by: str | None = None,
    event_id: object = None,  # compiled code raises `TypeError` for what is not of its parameter's type
    key: object = None,
    now: datetime | None = None,
    trace: Headers | None = None,
) -> Envelope:
    """Encode `event` and give it metadata.

    `cause` is the event being handled, if any, and `caused_by` the queue of its handler. `trace` holds the headers that
    continue a trace; without them that of `cause` goes on.

    Raises `PublishError` where a field cannot be written as JSON, and for an `event_id` that is not a text of 1 to 255
    bytes.
    """
    identity, trace = uuid7() if event_id is None else check_id(event_id), dict(trace or {})
    if key is None and event.__event_key__ is not None:
        key = getattr(event, event.__event_key__)
    metadata = Metadata(
        event_id=identity,
        event_type=event.__event_type__,
        time=now or datetime.now(UTC),
        version=event.__event_version__,
        source=source,
        key=None if key is None else str(key),
        correlation_id=(cause.correlation_id or cause.event_id) if cause else identity,
        causation_id=cause.event_id if cause else None,
        traceparent=trace.pop(h.TRACEPARENT, cause.traceparent if cause else None),
        caused_by=caused_by,
    )
    return Envelope(metadata, encode(event), headers=trace)


def with_metadata(envelope: Envelope, metadata: Metadata) -> Envelope:
    """Return the envelope with metadata of the caller's, which keep the event's key where they have none.

    Raises `PublishError` for metadata of another type or version, and for an id that is not a text of 1 to 255 bytes.
    """
    check_id(metadata.event_id)
    sealed = envelope.metadata
    for name in ("event_type", "version"):
        given, own = getattr(metadata, name), getattr(sealed, name)
        if given != own:
            raise PublishError(f"metadata has {name}={given!r:.80}, and the event has {own!r}")
    key = sealed.key if metadata.key is None else metadata.key
    return replace(envelope, metadata=replace(metadata, key=key))


def followed(envelope: Envelope) -> Envelope:
    """Return the envelope as the first event of a followed request, which is named after the event's correlation id."""
    metadata = envelope.metadata
    request = metadata.correlation_id or metadata.event_id
    headers = {**envelope.headers, h.FOLLOW: request}
    # A relay makes a board for an event that no handler publishes: those of the request's handlers are on it already.
    metadata = replace(metadata, follow=request, caused_by=None)
    return Envelope(metadata, envelope.body, envelope.content_type, headers)


def check_limits(envelope: Envelope, delay: float | None, *, max_body: int, max_delay: float) -> None:
    """Check an event that is to be published after `delay` seconds. Raises `TooLarge`, and `PublishError`."""
    kind, size = envelope.metadata.event_type, len(envelope.body)
    if size > max_body:
        raise TooLarge(f"{kind}: the body has {size} bytes; HOLDFAST_WORKER__MAX_BODY allows {max_body}")
    if delay and not 0 < delay <= max_delay:
        raise PublishError(f"{kind}: delay={delay!r} s is not within 0 and HOLDFAST_BROKER__MAX_DELAY={max_delay:g}")


def to_message(
    envelope: Envelope, *, exchange: str, routing_key: str | None = None, extra: Headers | None = None
) -> Message:
    """Return the message for one publish. Its `message_id` is new each time: returns are matched by it.

    `routing_key` is the event's type unless given; `extra` headers come last.
    """
    metadata = envelope.metadata
    headers: dict[str, Any] = {
        **envelope.headers,
        h.EVENT_ID: metadata.event_id,
        h.EVENT_VERSION: metadata.version,
        h.EVENT_TIME: metadata.time.isoformat(),
    }
    if metadata.key is not None:
        headers[h.EVENT_KEY] = metadata.key
    if metadata.causation_id is not None:
        headers[h.CAUSATION_ID] = metadata.causation_id
    if metadata.caused_by is not None:
        headers[h.CAUSED_BY] = metadata.caused_by
    if metadata.traceparent is not None:
        headers[h.TRACEPARENT] = metadata.traceparent
    if extra is not None:
        headers |= extra
    return Message(
        body=envelope.body,
        exchange=exchange,
        routing_key=metadata.event_type if routing_key is None else routing_key,
        headers=headers,
        message_id=uuid7(),
        type=metadata.event_type,
        content_type=envelope.content_type,
        correlation_id=metadata.correlation_id,
        timestamp=metadata.time if 1970 < metadata.time.year < 2106 else None,  # AMQP counts from 1970 to 2106
        app_id=metadata.source or None,
    )
