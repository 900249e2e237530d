"""Errors that a delivery can end with, besides the handler's own."""

from ..events import HoldfastError


class HandlerTimeout(HoldfastError, TimeoutError):
    """The handler did not finish within its time."""


class HandlerExit(HoldfastError):
    """The handler raised what would end the process (SystemExit, KeyboardInterrupt) or cancelled itself."""


class FingerprintMismatch(HoldfastError):
    """The event's key was used for another payload within the window."""


class Crashed(HoldfastError):
    """Each run of this event ended with its worker process."""


class Expired(HoldfastError):
    """The event is older than its policy's `max_age`."""


class HeldTooLong(HoldfastError):
    """Another worker held the event longer than any handler may take."""


class OwnershipLost(HoldfastError):
    """An ordered queue became another worker's while an event was being settled: that worker handles the event."""


class WorkNotDone(HoldfastError):
    """The handler returned what should have been done (an event, an exception, a generator), or middleware did not
    await it."""
