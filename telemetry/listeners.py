"""Handing one fact to many listeners."""

from collections.abc import Iterable

from .facts import Emit, Fact, ListenerFailed
from .log import FactLog

_log = FactLog()


def fan_out(listeners: Iterable[Emit]) -> Emit:
    """Return one function that hands each fact to every listener. A listener that raises is logged; the others go on.

    A listener may have a method `hears`, which is asked once for each kind of fact whether it is called with those.
    """
    everyone = tuple(listeners)
    hearers: dict[type[Fact], tuple[Emit, ...]] = {}

    def emit(fact: Fact) -> None:
        kind = type(fact)
        hearing = hearers.get(kind)
        if hearing is None:
            hearing = hearers[kind] = tuple(each for each in everyone if getattr(each, "hears", _everything)(kind))
        for listener in hearing:
            try:
                listener(fact)
            except Exception as error:  # noqa: BLE001 (the user's function)
                _log(ListenerFailed(kind.__name__, error))

    return emit


def _everything(kind: type[Fact]) -> bool:
    return True
