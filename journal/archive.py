"""Events of a journal as lines of JSON, and back into another journal."""

import json
from base64 import b64decode, b64encode
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from ..events import ConfigurationError, Envelope, Metadata, headers
from ..sql import History, Outgoing, Steps
from .recorded import Recorded

_METADATA = ("event_id", "event_type", "version", "source", "key", "correlation_id", "causation_id", "caused_by")


def line_of(event: Recorded) -> str:
    """Return an event as one line of JSON."""
    metadata = event.metadata
    values: dict[str, Any] = {name: getattr(metadata, name) for name in _METADATA}
    try:
        body: dict[str, Any] = {"body": event.body.decode()}
    except UnicodeDecodeError:
        body = {"body_base64": b64encode(event.body).decode()}
    return json.dumps(
        {
            "position": event.position,
            **values,
            "time": metadata.time.isoformat(),
            "traceparent": metadata.traceparent,
            "stream": event.stream,
            "stream_version": event.stream_version,
            "content_type": event.content_type,
            **body,
        }
    )


def outgoing_of(line: str, number: int) -> Outgoing:
    """Return the event in a line. Raises `ConfigurationError` naming the number of a line that holds none."""
    try:
        values = json.loads(line)
        body = b64decode(values["body_base64"]) if "body_base64" in values else values["body"].encode()
        metadata = Metadata(
            time=datetime.fromisoformat(values["time"]),
            traceparent=values.get(headers.TRACEPARENT),
            **{name: values[name] for name in _METADATA},
        )
        envelope = Envelope(metadata, body, values["content_type"])
        return Outgoing(envelope, None, values["stream"], values["stream_version"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigurationError(f"line {number} is no event of a journal: {type(error).__name__}: {error}") from None


def write_past(history: History, events: Sequence[Outgoing]) -> Steps[int]:
    """Write events that were sent before, and that are not to be sent again, unless they are there. Returns how many.

    They get the next positions, in this order: no other transaction gives any meanwhile.
    """
    yield history.lock_sequencer, {}
    by_id = {event.envelope.metadata.event_id: event for event in events}
    known = {row[0] for row in (yield history.known_ids, {"ids": json.dumps(list(by_id))})}
    fresh = [event for event_id, event in by_id.items() if event_id not in known]
    if fresh:
        yield from history.inserts(fresh)
        yield history.position_written, {"ids": json.dumps([event.envelope.metadata.event_id for event in fresh])}
        yield history.advance, {}
    return len(fresh)


def erase(history: History, key: str) -> Steps[int]:
    """Take away the bodies of a key's events, which stay in their order. Returns how many there were.

    Raises `ConfigurationError` while events of the key are not sent.
    """
    yield history.lock_sequencer, {}
    [(unsent,)] = yield history.unsent_of_key, {"key": key}
    if unsent:
        raise ConfigurationError(f"{unsent} event(s) of key {key!r} are not sent yet; erase them once they are")
    erased = len((yield history.erase, {"key": key}))
    yield history.erase_snapshots, {"key": key}
    return erased
