"""The event being handled, bound to every log line written meanwhile."""

from collections.abc import Iterator
from contextlib import contextmanager

from structlog.contextvars import bind_contextvars, reset_contextvars

from ..events import Metadata


@contextmanager
def event_context(metadata: Metadata, *, queue: str, handler: str, attempt: int) -> Iterator[None]:
    """Bind the event's ids; afterwards what the application had bound is as it was."""
    tokens = bind_contextvars(
        event_id=metadata.event_id,
        event_type=metadata.event_type,
        correlation_id=metadata.correlation_id,
        causation_id=metadata.causation_id,
        queue=queue,
        handler=handler,
        attempt=attempt,
    )
    try:
        yield
    finally:
        reset_contextvars(**tokens)
