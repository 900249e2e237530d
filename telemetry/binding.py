"""The event being handled, bound to every log line written meanwhile."""

from structlog.contextvars import bind_contextvars

from ..events import Metadata


def bind_event(metadata: Metadata, *, queue: str, handler: str, attempt: int) -> None:
    """Bind the event's ids in the current context. Each delivery is carried in one of its own, a copy of the
    application's, so what the application had bound is there as well, and stays as it was."""
    bind_contextvars(
        event_id=metadata.event_id,
        event_type=metadata.event_type,
        correlation_id=metadata.correlation_id,
        causation_id=metadata.causation_id,
        queue=queue,
        handler=handler,
        attempt=attempt,
    )
