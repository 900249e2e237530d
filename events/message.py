"""A message as it travels: bytes, address, properties and headers, in no library's dialect."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeAlias

Headers: TypeAlias = Mapping[str, Any]


@dataclass(slots=True)
class Message:
    """What a broker carries. Property names are AMQP 0-9-1's. Nothing changes it once it is made."""

    body: bytes
    exchange: str = ""
    routing_key: str = ""
    headers: Headers = field(default_factory=dict)
    message_id: str | None = None
    type: str | None = None
    content_type: str | None = None
    content_encoding: str | None = None
    correlation_id: str | None = None
    timestamp: datetime | None = None
    app_id: str | None = None
    priority: int | None = None
    reply_to: str | None = None


@dataclass(slots=True)
class Metadata:
    """The envelope's fields. Nothing changes them once they are made: take a changed copy by `dataclasses.replace`.

    `event_id` is opaque text, unique to the event. `event_type` and `version` name its class. `time` is when it
    happened, with a time zone. `source` names the program that published it, `key` the aggregate it belongs to.
    `correlation_id` is the id of the first event of its chain, `causation_id` that of the event whose handler published
    it. `traceparent` is its place in a trace (W3C).
    """

    event_id: str
    event_type: str
    time: datetime
    version: int = 1
    source: str = ""
    key: str | None = None
    correlation_id: str | None = None
    causation_id: str | None = None
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class History:
    """What earlier attempts left in a message's headers.

    `attempt` counts from 1, this run included. `held_for` is the number of seconds for which it has waited for another
    worker that holds it: a sum, since workers' clocks may differ.
    """

    attempt: int = 1
    held_for: float = 0.0
    traced: str | None = None
    first_failed_at: datetime | None = None
    last_error: str | None = None
