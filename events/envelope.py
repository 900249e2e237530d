"""Metadata to headers and back. Whatever comes from the wire is bounded and checked, never trusted."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeGuard

from . import headers as h
from .cloudevents import attributes_of
from .codec import encode
from .event import Event, key_of
from .ids import uuid7
from .message import Headers, Message
from .metadata import History, Metadata

MAX_TEXT = 255  # bytes, of what may travel on as a property
MAX_ATTEMPT = 1_000_000
MAX_HELD_MS = 1_000_000_000
_LONGEST_TIME = 42  # characters of ISO 8601, with microseconds in time and offset
_NONE_YET = History()


@dataclass(frozen=True, slots=True)
class Envelope:
    """An event ready to travel: its metadata, its encoded body and any further headers."""

    metadata: Metadata
    body: bytes
    content_type: str = "application/json"
    headers: Headers = field(default_factory=dict)


def seal(
    event: Event,
    *,
    source: str,
    cause: Metadata | None = None,
    event_id: str | None = None,
    key: str | None = None,
    now: datetime | None = None,
    trace: Headers | None = None,
) -> Envelope:
    """Encode `event` and give it metadata. `cause` is the event being handled, if any. `trace` holds the headers that
    continue a trace; without them that of `cause` goes on.

    Raises `PublishError` where a field cannot be written as JSON.
    """
    identity, trace = event_id or uuid7(), dict(trace or {})
    metadata = Metadata(
        event_id=identity,
        event_type=event.__event_type__,
        time=now or datetime.now(UTC),
        version=event.__event_version__,
        source=source,
        key=key if key is not None else key_of(event),
        correlation_id=(cause.correlation_id or cause.event_id) if cause else identity,
        causation_id=cause.event_id if cause else None,
        traceparent=trace.pop(h.TRACEPARENT, cause.traceparent if cause else None),
    )
    return Envelope(metadata, encode(event), headers=trace)


def to_message(envelope: Envelope, *, exchange: str) -> Message:
    """The message for one publish. Its `message_id` is new each time: returns are matched by it."""
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
    if metadata.traceparent is not None:
        headers[h.TRACEPARENT] = metadata.traceparent
    return Message(
        body=envelope.body,
        exchange=exchange,
        routing_key=metadata.event_type,
        headers=headers,
        message_id=uuid7(),
        type=metadata.event_type,
        content_type=envelope.content_type,
        correlation_id=metadata.correlation_id,
        timestamp=metadata.time,
        app_id=metadata.source or None,
    )


def read_metadata(message: Message, now: datetime) -> Metadata:
    """The metadata of a message from any producer.

    `type`, or else the routing key, names the event; the `event-id` header, or else `message_id`,
    or else a digest of the body is its id. A CloudEvent's attributes stand for them: source and id
    together are its id. `now` stands in where no time was sent.
    """
    carried = message.headers.get
    if h.EVENT_ID not in message.headers and (event := attributes_of(message)) is not None:
        return _of_cloudevent(message, event, now)
    return Metadata(
        _text(carried(h.EVENT_ID)) or _text(message.message_id) or body_digest(message.body),
        _text(message.type) or origin(message)[1],
        _time(carried(h.EVENT_TIME)) or _aware(message.timestamp) or now,
        _whole(carried(h.EVENT_VERSION), 1, MAX_ATTEMPT),
        _text(message.app_id) or "",
        _text(carried(h.EVENT_KEY)),
        _text(message.correlation_id),
        _text(carried(h.CAUSATION_ID)),
        _text(carried(h.TRACEPARENT)),
    )


def _of_cloudevent(message: Message, event: Mapping[str, Any], now: datetime) -> Metadata:
    identity = f"{event['source']}#{event['id']}"  # an id alone is unique within its source only
    return Metadata(
        identity if len(identity.encode()) <= MAX_TEXT else body_digest(identity.encode()),
        _text(event["type"]) or origin(message)[1],
        _moment(event.get("time")) or _aware(message.timestamp) or now,
        _whole(event.get("eventversion"), 1, MAX_ATTEMPT),
        _text(event["source"]) or "",
        _text(event.get("subject")),
        _text(message.correlation_id) or _text(event.get("correlationid")),
        _text(event.get("causationid")),
        _text(event.get("traceparent")),
    )


def read_history(message: Message) -> History:
    """The attempts behind a message; a forged or broken header counts as none."""
    headers = message.headers
    if h.ATTEMPT not in headers and h.HELD_MS not in headers:
        return _NONE_YET
    return History(
        attempt=_whole(headers.get(h.ATTEMPT), 1, MAX_ATTEMPT),
        held_for=_whole(headers.get(h.HELD_MS), 0, MAX_HELD_MS) / 1000,
        traced=_text(headers.get(h.TRACED)),
        first_failed_at=_time(headers.get(h.FIRST_FAILED_AT)),
        last_error=_text(headers.get(h.LAST_ERROR), 4_000),
    )


def has_id(message: Message) -> bool:
    """Whether the message brought an id; otherwise a digest of its body stands for one."""
    return bool(_text(message.headers.get(h.EVENT_ID)) or _text(message.message_id))


def origin(message: Message) -> tuple[str, str]:
    """Exchange and routing key the message was first published with, also after delays."""
    exchange, key = message.headers.get(h.EXCHANGE), message.headers.get(h.ROUTING_KEY)
    if _is_short(exchange) and _is_short(key):
        return exchange, key
    return message.exchange, message.routing_key


def body_digest(body: bytes) -> str:
    """The event id of a message that brought none."""
    return "sha256:" + hashlib.sha256(body).hexdigest()


def _text(value: object, limit: int = MAX_TEXT) -> str | None:
    return value if _is_short(value, limit) and value else None


def _is_short(value: object, limit: int = MAX_TEXT) -> TypeGuard[str]:
    if not isinstance(value, str) or len(value) > limit:
        return False
    return value.isascii() or len(value.encode("utf-8", "replace")) <= limit


def _whole(value: object, default: int, maximum: int) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        value = int(value)
    return value if type(value) is int and 1 <= value <= maximum else default


def _time(value: object) -> datetime | None:
    if isinstance(value, datetime):
        return _aware(value)
    if not isinstance(value, str) or len(value) > _LONGEST_TIME:
        return None
    try:
        return _aware(datetime.fromisoformat(value))
    except ValueError:
        return None


def _moment(value: object) -> datetime | None:
    if type(value) is int and 0 <= value < 32_503_680_000_000:  # AMQP's timestamp: milliseconds, up to the year 3000
        return datetime.fromtimestamp(value / 1000, UTC)
    return _time(value)


def _aware(value: datetime | None) -> datetime | None:
    return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value
