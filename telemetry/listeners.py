"""Handing one fact to many listeners."""

from collections.abc import Iterable

from .facts import Emit, Fact
from .log import holdfast_logger


def fan_out(listeners: Iterable[Emit]) -> Emit:
    """One function that hands each fact to every listener. A listener that fails is told of and hurts nobody.

    A listener may have an attribute `ignores`, a set of kinds of facts it is not to be called with: of some there are
    several for each message.
    """
    everyone = tuple(listeners)
    who_hears: dict[type[Fact], tuple[Emit, ...]] = {}

    def emit(fact: Fact) -> None:
        kind = type(fact)
        hearing = who_hears.get(kind)
        if hearing is None:
            hearing = who_hears[kind] = tuple(each for each in everyone if kind not in getattr(each, "ignores", ()))
        for listener in hearing:
            try:
                listener(fact)
            except Exception:  # noqa: BLE001 (the user's function)
                holdfast_logger().exception("listener.failed", fact=kind.__name__)

    return emit
