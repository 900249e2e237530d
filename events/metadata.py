"""What is known about an event besides its data. A compiled class has no docstring, so this module stays Python."""

from dataclasses import dataclass, field
from datetime import datetime

from .message import Headers


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


@dataclass(slots=True)
class Envelope:
    """An event ready to travel: its metadata, its encoded body and any further headers."""

    metadata: Metadata
    body: bytes
    content_type: str = "application/json"
    headers: Headers = field(default_factory=dict)
