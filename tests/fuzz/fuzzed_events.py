"""Targets: bodies, CloudEvents and receipts. Each raises only where a promise is broken."""

import math
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, TypeVar
from uuid import UUID

from drawing import Drawing

from holdfast import Event, upcast
from holdfast.broker.codec import pack
from holdfast.events import (
    Message,
    Unreadable,
    decode,
    decoder_for,
    encode,
    in_form,
    read_metadata,
    read_receipt,
    reader,
    receipt_message,
    seal,
    to_message,
)
from holdfast.events import headers as h
from holdfast.events.reading import Reading

T = TypeVar("T")
NOW = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)
FORMS = ("plain", "cloudevents-binary", "cloudevents-structured")
CONTENT_TYPES = (None, "application/json", "text/plain; charset=x", "application/cloudevents+json", "a/b+json", "a/b")
ENCODINGS = (None, None, "utf-8", "gzip")


class First(Event, type="fuzz.thing", version=1):
    name: str


class Second(Event, type="fuzz.thing", version=2):
    name: str
    count: int


class Thing(Event, type="fuzz.thing", version=3, key="name"):
    name: str
    count: int = 0
    ratio: float = 0.0
    price: Decimal = Decimal(0)
    at: datetime | None = None
    id: UUID | None = None
    lines: tuple[int, ...] = ()
    parts: dict[str, "Thing"] | None = None
    whatever: Any = None


@upcast(First, Second)
def count_letters(first: First) -> Second:
    return Second(name=first.name, count=1000 // len(first.name))  # an upcast has faults of its own


@upcast(Second, Thing)
def to_thing(second: Second) -> Thing:
    return Thing(name=second.name, count=second.count)


READER = reader([Thing], "the fuzzer")


def bodies(data: bytes) -> None:
    """A body of any content type is an event of its class, an object or bytes; or `Unreadable` says why, briefly.
    An event that was read can be written, and is the same when it is read again. It holds no NaN."""
    draw = Drawing(data)
    kind, encoding, version = draw.one_of(CONTENT_TYPES), draw.one_of(ENCODINGS), 1 + draw.number(5)
    message = Message(draw.rest(), type="fuzz.thing", content_type=kind, content_encoding=encoding)

    reading = READER.versions.get(version) or READER.otherwise(version)
    if reading is not None and (event := taken(lambda: whole(reading, message))) is not None:
        numbers = floats(event.model_dump())
        assert not any(map(math.isnan, numbers))
        if all(map(math.isfinite, numbers)):
            assert decode(READER.versions[3].decoder, Message(encode(event))) == event
    if (told := taken(lambda: decode(decoder_for(dict), message))) is not None:
        assert isinstance(told, dict) and not any(map(math.isnan, floats(told)))
    assert decode(decoder_for(bytes), message) == message.body


def whole(reading: Reading, message: Message) -> Thing:
    """As a handler's specification reads it."""
    event = decode(reading.decoder, message)
    event = event if reading.casts is None else reading.casts(event)
    assert isinstance(event, Thing)
    return event


def taken(read: Callable[[], T]) -> T | None:
    """What is read; None where it cannot be, which is told in a few words."""
    try:
        return read()
    except Unreadable as error:
        told = str(error)
    assert len(told) <= 4_200
    return None


def cloudevents(data: bytes) -> None:
    """Metadata is read from any message, bounded, however broken its attributes are; an event that is published
    because of it can be written in each form, and names its cause when it is read again."""
    draw = Drawing(data)
    if draw.number(2):
        message = Message(draw.rest(), content_type="application/cloudevents+json", routing_key="fuzz.thing")
    else:
        prefix = draw.one_of(("cloudEvents:", "cloudEvents_", "ce-", ""))
        names = ("specversion", "id", "source", "type", "time", "eventversion", "subject", "correlationid", h.EVENT_ID)
        headers = {f"{prefix}specversion": "1.0"}
        while not draw.is_empty:
            headers[prefix + draw.one_of(names)] = draw.value()
        message = Message(b"{}", headers=headers, routing_key="fuzz.thing")

    cause = read_metadata(message, NOW)

    texts = (cause.event_id, cause.source, cause.key, cause.correlation_id, cause.causation_id, cause.traceparent)
    assert all(text is None or len(text.encode()) <= 255 for text in texts)
    for form in FORMS:
        envelope = seal(Thing(name="n"), source="fuzz", cause=cause, now=NOW)
        written = to_message(in_form(envelope, form), exchange="events")  # type: ignore[arg-type]
        pack(written)
        again = read_metadata(written, NOW)
        assert (again.event_id, again.causation_id) == (envelope.metadata.event_id, cause.event_id)
        assert again.correlation_id == (cause.correlation_id or cause.event_id)
        assert decode(READER.versions[3].decoder, written) == Thing(name="n")


def receipts(data: bytes) -> None:
    """A body is a receipt or is none. One that is can be stored as text, and written again."""
    found = read_receipt(Message(data))

    if found is not None:
        f"{found.replay} {found.letter} {found.error} {found.fingerprint}".encode()
        assert read_receipt(receipt_message(found)) == found


def floats(value: Any) -> list[float]:
    match value:
        case float():
            return [value]
        case dict():
            return [number for inner in value.values() for number in floats(inner)]
        case list() | tuple():
            return [number for inner in value for number in floats(inner)]
        case _:
            return []
