"""Incoming messages: their headers as metadata and history. Whatever comes from the wire is bounded and checked."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeGuard

from . import headers as h
from .cloudevents import attributes_of
from .message import History, Message, Metadata

MAX_TEXT = 255  # bytes, of what may travel on as a property
MAX_ATTEMPT = 1_000_000
MAX_HELD_MS = 1_000_000_000
_LONGEST_TIME = 42  # characters of ISO 8601, with microseconds in time and offset
_NONE_YET = History()


@dataclass(slots=True)
class Incoming:
    """A message and all that its headers say of it.

    Without `has_id` the message brought no id, and the event's id is a digest of the body.
    """

    message: Message
    metadata: Metadata
    history: History
    has_id: bool


def read_incoming(message: Message, now: datetime) -> Incoming:
    """Return the message with its metadata, its history and whether it brought an id.

    The same as `read_metadata` and `read_history` return, in one pass for a message as Holdfast writes it.
    `now` is the event's time where no time was sent.
    """
    headers = message.headers
    history = read_history(message) if h.ATTEMPT in headers or h.HELD_MS in headers else _NONE_YET
    if (metadata := _as_written(message)) is not None:
        return Incoming(message, metadata, history, True)
    has_id = bool(_text(headers.get(h.EVENT_ID)) or _text(message.message_id))
    return Incoming(message, read_metadata(message, now), history, has_id)


def _as_written(message: Message) -> Metadata | None:
    """Return the metadata where each has the form in which Holdfast writes it; None where one needs a closer look.

    All texts are checked at once, for speed. `join` refuses a value of another type.
    """
    carried = message.headers.get
    event_id, version, time = carried(h.EVENT_ID), carried(h.EVENT_VERSION), carried(h.EVENT_TIME)
    if not event_id or not message.type or type(version) is not int or type(time) is not str:
        return None
    source, key, correlation_id = message.app_id or "", carried(h.EVENT_KEY) or "", message.correlation_id or ""
    causation_id, traceparent = carried(h.CAUSATION_ID) or "", carried(h.TRACEPARENT) or ""
    texts = (event_id, message.type, source, key, correlation_id, causation_id, traceparent)
    try:
        joined, moment = "".join(texts), datetime.fromisoformat(time)
    except (TypeError, ValueError):
        return None
    are_short = len(time) <= _LONGEST_TIME and (len(joined) <= MAX_TEXT or max(map(len, texts)) <= MAX_TEXT)
    if not (are_short and joined.isascii() and moment.tzinfo is not None and 1 <= version <= MAX_ATTEMPT):
        return None
    return Metadata(
        event_id,
        message.type,
        moment,
        version,
        source,
        key or None,
        correlation_id or None,
        causation_id or None,
        traceparent or None,
    )


def read_metadata(message: Message, now: datetime) -> Metadata:
    """Return the metadata of a message from any producer.

    `type`, or else the routing key, names the event; the `event-id` header, or else `message_id`,
    or else a digest of the body is its id. A CloudEvent's attributes take precedence without that header:
    its source and id together are the id. `now` is the event's time where no time was sent.
    """
    carried = message.headers.get
    if h.EVENT_ID not in message.headers and (event := attributes_of(message)) is not None:
        return _of_cloudevent(message, event, now)
    return Metadata(
        _text(carried(h.EVENT_ID)) or _text(message.message_id) or _digest_of(message.body),
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
        identity if len(identity.encode()) <= MAX_TEXT else _digest_of(identity.encode()),
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
    """Return the attempts behind a message; a forged or broken header counts as missing."""
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


def origin(message: Message) -> tuple[str, str]:
    """Return the exchange and routing key with which the message was first published, also after delays."""
    exchange, key = message.headers.get(h.EXCHANGE), message.headers.get(h.ROUTING_KEY)
    if _is_short(exchange) and _is_short(key):
        return exchange, key
    return message.exchange, message.routing_key


def _digest_of(body: bytes) -> str:
    """Return the event id of a message that brought none."""
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
