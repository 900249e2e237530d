"""Headers of the application's own, which travel with an event."""

from collections.abc import Iterable
from dataclasses import replace

from ..events import Envelope, Headers, PublishError, headers
from .codec import headers_size

_CLOUD_EVENTS = ("cloudEvents:", "cloudEvents_", "ce-")


def with_headers(envelope: Envelope, given: Headers) -> Envelope:
    """Return the envelope with headers of the application's own.

    Raises `PublishError` naming a header that is Holdfast's, the broker's or a CloudEvent's, or that AMQP cannot carry.
    """
    names: Iterable[object] = given
    for name in names:
        if not isinstance(name, str) or not name or not headers.is_free(name) or name.startswith(_CLOUD_EVENTS):
            raise PublishError(
                f"{envelope.metadata.event_type}: the header {name!r:.60} is not the application's to give"
            )
    try:
        headers_size(given)
    except ValueError as error:
        raise PublishError(f"{envelope.metadata.event_type}: {error}") from None
    return replace(envelope, headers={**given, **envelope.headers})
