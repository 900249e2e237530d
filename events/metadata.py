"""What is known about an event besides its data."""

from datetime import datetime

from .value import value


@value
class Metadata:
    """The envelope's fields. `time` is when the event happened; ids are opaque text."""

    event_id: str
    event_type: str
    time: datetime
    version: int = 1
    source: str = ""
    key: str | None = None
    correlation_id: str | None = None
    causation_id: str | None = None
    traceparent: str | None = None


@value
class History:
    """What earlier attempts left in a message's headers. `attempt` counts from 1, this run included. `held_since` is
    when it was first found held by another worker, of those waits that follow one another."""

    attempt: int = 1
    held_since: datetime | None = None
    traced: str | None = None
    first_failed_at: datetime | None = None
    last_error: str | None = None
