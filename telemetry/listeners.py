"""Handing one fact to many listeners."""

from collections.abc import Iterable

from .facts import Emit, Fact
from .log import holdfast_logger


def fan_out(listeners: Iterable[Emit]) -> Emit:
    """One function that hands each fact to every listener. A listener that fails is told of and hurts nobody."""
    everyone = tuple(listeners)

    def emit(fact: Fact) -> None:
        for listener in everyone:
            try:
                listener(fact)
            except Exception:  # noqa: BLE001 (the user's function)
                holdfast_logger().exception("listener.failed", fact=type(fact).__name__)

    return emit
