"""The event being handled, bound to every log line written meanwhile."""

from structlog.contextvars import bind_contextvars

from ..events import Metadata


def bind_handler(*, queue: str, handler: str) -> None:
    """Bind, in the current context, what is the same for all deliveries of a handler."""
    bind_contextvars(queue=queue, handler=handler, attempt=1, causation_id=None)


def bind_event(metadata: Metadata, attempt: int) -> None:
    """Bind the event's ids in the current context. Each delivery is carried in one of its own, a copy of one in which
    its handler is bound and whatever the application had bound, so that stays as it was."""
    bind_contextvars(event_id=metadata.event_id, event_type=metadata.event_type, correlation_id=metadata.correlation_id)
    if metadata.causation_id is not None:
        bind_contextvars(causation_id=metadata.causation_id)
    if attempt != 1:
        bind_contextvars(attempt=attempt)
