"""Errors of sagas."""

from ..events import HoldfastError


class SagaError(HoldfastError):
    """A method of a saga did what its declaration does not say."""


class TooEarly(SagaError):
    """No saga takes the event yet: it is not begun, or a later stage takes the event."""
