"""What is known about an event besides its data. A compiled class has no docstring, so this module stays Python."""

from dataclasses import dataclass, field
from datetime import datetime

from .message import Headers


@dataclass(slots=True)
class Metadata:
    """What is known about an event besides its data.

    Nothing changes it once it is made: take a changed copy by `dataclasses.replace`.

    Attributes:
        event_id: Opaque text, unique to the event.
        event_type: The type of its class.
        time: When it happened, with a time zone.
        version: The version of its class; 0 where its producer sent one that is no whole number from 1.
        source: The program that published it.
        key: The aggregate it belongs to.
        correlation_id: The id of the first event of its chain.
        causation_id: The id of the event whose handler published it.
        traceparent: Its place in a trace (W3C).
        caused_by: The queue of the handler that published it.
        follow: Of what `publish(..., follow=True)` returns, the request to ask for; None where it is not followed.
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
    caused_by: str | None = None
    follow: str | None = None


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
    """An event ready to travel.

    Attributes:
        metadata: Its metadata.
        body: Its encoded body.
        content_type: The media type of the body.
        headers: Further headers.
    """

    metadata: Metadata
    body: bytes
    content_type: str = "application/json"
    headers: Headers = field(default_factory=dict)
