"""Handing one fact to many listeners."""

from collections.abc import Iterable, Iterator

from .facts import Emit, Fact, ListenerFailed
from .log import FactLog

_log = FactLog()


def fan_out(listeners: Iterable[Emit]) -> Emit:
    """Return one function that hands each fact to every listener. A listener that raises is logged; the others go on.

    A listener may have a method `listener_for`, which is asked once for each kind of fact what to call with those, and
    returns None for nothing.
    """
    everyone = tuple(listeners)
    by_kind: dict[type[Fact], tuple[Emit, ...]] = {}

    def emit(fact: Fact) -> None:
        kind = type(fact)
        called = by_kind.get(kind)
        if called is None:
            called = by_kind[kind] = tuple(_called_with(kind, everyone))
        for listener in called:
            try:
                listener(fact)
            except Exception as error:  # noqa: BLE001 (the user's function)
                _log(ListenerFailed(kind.__name__, error))

    return emit


def _called_with(kind: type[Fact], listeners: Iterable[Emit]) -> Iterator[Emit]:
    for listener in listeners:
        listener_for = getattr(listener, "listener_for", None)
        called = listener if listener_for is None else listener_for(kind)
        if called is not None:
            yield called
