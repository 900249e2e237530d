"""CloudEvents 1.0: attributes read from both forms, envelopes written in either (AMQP binding, JSON format).

Binary: attributes are headers named `cloudEvents:id` (or `cloudEvents_id`, or RabbitMQ's `ce-id`), the body is data.
Structured: the body is a JSON object that holds attributes and data; some producers send it as `text/plain`.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, TypeAlias
from urllib.parse import quote

from pydantic_core import from_json, to_json

from .body import content_type_of, unpacked
from .message import Message
from .metadata import Envelope

Form: TypeAlias = Literal["plain", "cloudevents-binary", "cloudevents-structured"]

STRUCTURED = "application/cloudevents+json"
PREFIXES = ("cloudEvents:", "cloudEvents_", "ce-")
_MARKS = [(f"{prefix}specversion", prefix) for prefix in PREFIXES]


def attributes_of(message: Message) -> Mapping[str, Any] | None:
    """Return the attributes of a CloudEvent 1.x; None for any other message. Never raises."""
    if message.content_type != "application/json" and is_structured(message):
        return _attributes_in(message)
    prefix = next((prefix for mark, prefix in _MARKS if mark in message.headers), None) if message.headers else None
    if prefix is None:
        return None
    given = {name.removeprefix(prefix): v for name, v in message.headers.items() if name.startswith(prefix)}
    return given if _is_event(given) else None


def is_structured(message: Message) -> bool:
    """Return whether a message is a CloudEvent in structured form, by its content type, or as text by its body."""
    kind = content_type_of(message)
    return kind == STRUCTURED or (kind == "text/plain" and _attributes_in(message) is not None)


def _attributes_in(message: Message) -> Mapping[str, Any] | None:
    try:
        given = from_json(unpacked(message))
    except (ValueError, RecursionError):
        return None
    return given if isinstance(given, dict) and _is_event(given) else None


def _is_event(attributes: Mapping[str, Any]) -> bool:
    """Return whether the attributes that every CloudEvent has are there; an id may be a number."""
    given = (attributes.get(name) for name in ("id", "source", "type"))
    is_whole = all(type(value) is int or (isinstance(value, str) and value) for value in given)
    return is_whole and str(attributes.get("specversion", "")).startswith("1.")


def data_of(body: bytes) -> bytes:
    """Return the data of a structured CloudEvent. Raises `ValueError` for anything else."""
    event = from_json(body, allow_inf_nan=False)
    if not isinstance(event, dict) or not str(event.get("specversion", "")).startswith("1."):
        raise ValueError("not a CloudEvent of version 1")
    if isinstance(encoded := event.get("data_base64"), str):
        return base64.b64decode(encoded, validate=True)
    if "data" not in event:
        raise ValueError("a CloudEvent without data")
    return to_json(event["data"])


def in_form(envelope: Envelope, form: Form) -> Envelope:
    """Return the envelope in the form in which it is written. Holdfast's own headers are part of every form."""
    if form == "plain":
        return envelope
    attributes = _attributes(envelope)
    if form == "cloudevents-binary":
        prefixed = {f"{PREFIXES[0]}{name}": value for name, value in attributes.items()}
        return replace(envelope, headers={**envelope.headers, **prefixed})
    head = json.dumps({**attributes, "datacontenttype": envelope.content_type}, ensure_ascii=False).encode()
    return replace(envelope, body=head[:-1] + b', "data": ' + envelope.body + b"}", content_type=STRUCTURED)


def _attributes(envelope: Envelope) -> dict[str, str]:
    metadata = envelope.metadata
    attributes = {
        "specversion": "1.0",
        "id": metadata.event_id,
        "source": quote(metadata.source or "holdfast", safe="/:#?&=@+,;~"),
        "type": metadata.event_type,
        "time": metadata.time.isoformat(),
        "eventversion": str(metadata.version),
        "subject": metadata.key,
        "correlationid": metadata.correlation_id,
        "causationid": metadata.causation_id,
        "traceparent": metadata.traceparent,
        "causedby": metadata.caused_by,
    }
    return {name: value for name, value in attributes.items() if value}
