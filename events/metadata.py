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
    """What earlier attempts left in a message's headers. `attempt` counts from 1, this run included. `held_for` is
    how many seconds it has waited for another worker that holds it: a sum, since workers' clocks may differ."""

    attempt: int = 1
    held_for: float = 0.0
    traced: str | None = None
    first_failed_at: datetime | None = None
    last_error: str | None = None
