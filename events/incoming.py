"""Incoming messages: their headers as metadata and history. Whatever comes from the wire is bounded and checked."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeGuard

from . import headers as h
from .cloudevents import attributes_of
from .message import Message
from .metadata import History, Metadata

MAX_TEXT: Final = 255  # bytes, of what may travel on as a property
MAX_ATTEMPT: Final = 1_000_000
MAX_HELD_MS: Final = 1_000_000_000
_LONGEST_TIME: Final = 42  # characters of ISO 8601, with microseconds in time and offset
_LARGEST_NUMBER: Final = 2**64
_NONE_YET: Final = History()


@dataclass(slots=True, init=False)
class Incoming:
    """A message and all that its headers say of it.

    Without `has_id` the message brought no id, and the event's id is a guess: a digest of what the message holds, which
    another event may share.
    """

    message: Message
    metadata: Metadata
    history: History
    has_id: bool

    def __init__(self, message: Message, metadata: Metadata, history: History, has_id: bool) -> None:
        self.message, self.metadata, self.history, self.has_id = message, metadata, history, has_id


@dataclass(frozen=True, slots=True)
class Names:
    """The headers in which producers of other kinds put an event's id and its type, the first that is there counts."""

    id: tuple[str, ...] = ()
    type: tuple[str, ...] = ()


_NO_NAMES: Final = Names()


def read_incoming(message: Message, now: datetime, names: Names = _NO_NAMES) -> Incoming:
    """Return the message with its metadata, its history and whether it brought an id.

    `now` is the event's time where no time was sent.
    """
    return read_written(message) or read_foreign(message, now, names)


def read_foreign(message: Message, now: datetime, names: Names) -> Incoming:
    """Return the same of a message that has not the form in which Holdfast writes it."""
    metadata, has_id = _read(message, now, names)
    return Incoming(message, metadata, read_history(message), has_id)


def read_written(message: Message) -> Incoming | None:
    """Return the same of a message as Holdfast writes it, in one pass; None where something needs a closer look.

    All texts are checked at once, for speed. `join` refuses a value of another type.
    """
    headers = message.headers
    carried = headers.get
    event_id, version, time = carried(h.EVENT_ID), carried(h.EVENT_VERSION), carried(h.EVENT_TIME)
    if not event_id or not message.type or type(version) is not int or type(time) is not str:
        return None
    source, key, correlation_id = message.app_id or "", carried(h.EVENT_KEY, ""), message.correlation_id or ""
    causation_id, traceparent = carried(h.CAUSATION_ID, ""), carried(h.TRACEPARENT, "")
    caused_by = carried(h.CAUSED_BY, "")
    texts = (event_id, message.type, source, key, correlation_id, causation_id, traceparent, caused_by)
    try:
        joined, moment = "".join(texts), datetime.fromisoformat(time)
    except (TypeError, ValueError):
        return None
    are_short = len(time) <= _LONGEST_TIME and (len(joined) <= MAX_TEXT or max(map(len, texts)) <= MAX_TEXT)
    if not (are_short and joined.isascii() and moment.tzinfo is UTC and 1 <= version <= MAX_ATTEMPT):
        return None
    metadata = Metadata(
        event_id,
        message.type,
        moment,
        version,
        source,
        key or None,
        correlation_id or None,
        causation_id or None,
        traceparent or None,
        caused_by or None,
    )
    history = read_history(message) if h.ATTEMPT in headers or h.HELD_MS in headers else _NONE_YET
    return Incoming(message, metadata, history, h.GUESSED_ID not in headers)


def read_metadata(message: Message, now: datetime, names: Names = _NO_NAMES) -> Metadata:
    """Return the metadata of a message from any producer.

    `type`, or else the routing key, names the event; the `event-id` header, or else `message_id`,
    or else a digest of type, routing key, source and body is its id. A CloudEvent's attributes, and the headers in
    `names`, take precedence without the `event-id` header: source and id of a CloudEvent together are the id. `now` is
    the event's time where no time was sent.
    """
    return _read(message, now, names)[0]


def _read(message: Message, now: datetime, names: Names) -> tuple[Metadata, bool]:
    """Return the metadata, and whether the message brought an id."""
    carried = message.headers.get
    if h.EVENT_ID in message.headers:
        names = _NO_NAMES
    elif (event := attributes_of(message)) is not None:
        return _of_cloudevent(message, event, now), True
    own_id = _text(carried(h.MESSAGE_ID, message.message_id))
    given_id = _identifier(carried(h.EVENT_ID)) or _first(message, names.id) or own_id
    event_type = _first(message, names.type) or _text(message.type) or origin(message)[1]
    source = _text(message.app_id) or ""
    metadata = Metadata(
        given_id or _guess(event_type, origin(message)[1], source, message.body),
        event_type,
        _time(carried(h.EVENT_TIME)) or _in_utc(message.timestamp) or now,
        _version(carried(h.EVENT_VERSION)),
        source,
        _identifier(carried(h.EVENT_KEY)),
        _text(message.correlation_id),
        _identifier(carried(h.CAUSATION_ID)),
        _text(carried(h.TRACEPARENT)),
        _text(carried(h.CAUSED_BY)) if h.CAUSED_BY in message.headers else None,
    )
    return metadata, given_id is not None and h.GUESSED_ID not in message.headers


def _of_cloudevent(message: Message, event: Mapping[str, Any], now: datetime) -> Metadata:
    identity = f"{event['source']}#{event['id']}"  # an id alone is unique within its source only
    return Metadata(
        _text(identity) or _digest_of(identity.encode("utf-8", "replace")),
        _text(event["type"]) or origin(message)[1],
        _moment(event.get("time")) or _in_utc(message.timestamp) or now,
        _version(event.get("eventversion")),
        _identifier(event["source"]) or "",
        _identifier(event.get("subject")),
        _text(message.correlation_id) or _identifier(event.get("correlationid")),
        _identifier(event.get("causationid")),
        _text(event.get("traceparent")),
        _text(event.get("causedby")),
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
    if is_short(exchange) and is_short(key):
        return exchange, key
    return message.exchange, message.routing_key


def metadata_headers(metadata: Metadata) -> dict[str, Any]:
    """Return the headers from which the same metadata are read. Type, source and correlation id are properties.

    `to_message` writes the same ones itself: it is one function less for every publish.
    """
    carried = {
        h.EVENT_ID: metadata.event_id,
        h.EVENT_VERSION: metadata.version,
        h.EVENT_TIME: metadata.time.isoformat(),
        h.EVENT_KEY: metadata.key,
        h.CAUSATION_ID: metadata.causation_id,
        h.TRACEPARENT: metadata.traceparent,
        h.CAUSED_BY: metadata.caused_by,
    }
    return {name: value for name, value in carried.items() if value is not None}


def _guess(event_type: str, routing_key: str, source: str, body: bytes) -> str:
    """Return the event id of a message that brought none: the same for messages that differ in nothing."""
    head = "".join(f"{len(part)}:{part}" for part in (event_type, routing_key, source))
    return _digest_of(head.encode("utf-8", "replace") + body)


def _digest_of(identity: bytes) -> str:
    return "sha256:" + hashlib.sha256(identity).hexdigest()


def _first(message: Message, names: tuple[str, ...]) -> str | None:
    """Return the first of these headers that holds an identifier."""
    return next((text for name in names if (text := _identifier(message.headers.get(name)))), None)


def _identifier(value: object) -> str | None:
    """Return an id, a key or a type; many programs number what they send."""
    return str(value) if type(value) is int and abs(value) < _LARGEST_NUMBER else _text(value)


def _text(value: object, limit: int = MAX_TEXT) -> str | None:
    return value if is_short(value, limit) and value else None


def is_short(value: object, limit: int = MAX_TEXT) -> TypeGuard[str]:
    """Return whether it is a text of at most `limit` bytes. One with half a surrogate pair cannot be written again."""
    if not isinstance(value, str) or len(value) > limit:
        return False
    try:
        return value.isascii() or len(value.encode()) <= limit
    except UnicodeEncodeError:
        return False


def _version(value: object) -> int:
    """Return a version, a whole number in any form: 1 where none was sent, and 0 where it cannot be read."""
    if value is None or value == "":
        return 1
    if isinstance(value, str):
        value = value.removesuffix(".0")
    elif isinstance(value, float) and value.is_integer():
        value = int(value)
    return _whole(value, 0, MAX_ATTEMPT)


def _whole(value: object, default: int, maximum: int) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        value = int(value)
    return value if type(value) is int and 1 <= value <= maximum else default


def _time(value: object) -> datetime | None:
    if isinstance(value, datetime):
        return _in_utc(value)
    if not isinstance(value, str) or len(value) > _LONGEST_TIME:
        return None
    try:
        return _in_utc(datetime.fromisoformat(value))
    except ValueError:
        return None


def _moment(value: object) -> datetime | None:
    if type(value) is int and 0 <= value < 32_503_680_000_000:  # AMQP's timestamp: milliseconds, up to the year 3000
        return datetime.fromtimestamp(value / 1000, UTC)
    return _time(value)


def _in_utc(value: datetime | None) -> datetime | None:
    """Return a time in UTC, as which one without a zone is read; None for one that the calendar does not have there."""
    if value is None or value.tzinfo is None:
        return None if value is None else value.replace(tzinfo=UTC)
    try:
        return value.astimezone(UTC)
    except OverflowError:
        return None
