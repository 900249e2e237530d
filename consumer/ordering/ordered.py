"""`Ordered`: how a handler keeps the events of one key in order, and which declarations cannot work."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from ...broker import Existing
from ...events import ConfigurationError, DecodeError, Event, Incoming, Kind, is_short

if TYPE_CHECKING:
    from ..options import HandlerOptions

By: TypeAlias = str | Callable[[Any], Any]
"""What names the key of an event: a field, or a function of the event."""

_PARTITIONS = (1, 2, 4, 8, 16, 32, 64)

_MOST_PARKED = 50_000
"""An owner has its ledger in hand, of which RabbitMQ gives it 65,535 messages. The rest is for retries and replays."""

WhenDead: TypeAlias = Literal["hold", "go-on"]


@dataclass(frozen=True, slots=True)
class Ordered:
    """How a handler keeps the events of one key in order.

    Args:
        by: What names the key: a field, or a function of the event. By default the event's own `key`. An event whose
            key is empty, or has more than 255 bytes, is refused.
        partitions: Among how many queues the keys are divided: 1, or a power of two up to 64. Each has one owner at a
            time, so as many workers can handle events at once.
        when_dead: "hold": a dead letter holds up the later events of its key until it is replayed or skipped.
            "go-on": it does not.
        parked: The most events that may wait in the ledger of a partition, 50,000 at most. When it is full, the
            partition starts nothing new.
    """

    by: By | None = None
    partitions: int = 1
    when_dead: WhenDead = "hold"
    parked: int = 10_000

    def key_of(self, incoming: Incoming, read: Callable[[Incoming], Any]) -> str:
        """Return the key of an event.

        Args:
            incoming: The message of the event.
            read: What makes a message an event.

        Returns:
            The key; of an event that cannot be read, the one that its producer sent. "" if there is none.
        """
        known = incoming.metadata.key
        if self.by is None and known is not None:
            return known
        try:
            return self._of_event(read(incoming))
        except DecodeError:
            return known or ""
        except Exception:  # noqa: BLE001 (the user's function)
            return ""

    def _of_event(self, event: Any) -> str:
        by = self.by if self.by is not None else type(event).__event_key__
        if callable(by):
            return _text(by(event))
        return _text(event.get(by) if isinstance(event, dict) else getattr(event, str(by)))


def _text(key: object) -> str:
    """Return a key as text; "" for one that is none, or that does not fit the headers of an entry and a dead letter."""
    text = "" if key is None else str(key)
    return text if is_short(text) else ""


def check_ordered(options: "HandlerOptions", kinds: Mapping[str, tuple[Kind, ...]], where: str) -> Ordered | None:
    """Return the order that a handler asks for, None if it asks for none. Raises `ConfigurationError`."""
    ordered = options["ordered"]
    if ordered is False:
        return None
    asked = Ordered() if ordered is True else ordered
    if not isinstance(asked, Ordered):
        raise ConfigurationError(f"{where}: ordered={ordered!r}; give True, or Ordered(by=...)")
    if not options["idempotent"]:
        raise ConfigurationError(
            f"{where}: ordered= needs idempotent=True: an owner that lost its queue is fenced by it"
        )
    if options["prefetch"] is not None:
        raise ConfigurationError(f"{where}: ordered= has a prefetch of its own; leave prefetch= out")
    if options["on_outage"] == "process":
        raise ConfigurationError(f"{where}: ordered= does not run without claims; leave on_outage='process' out")
    if isinstance(options["queue"], Existing):
        raise ConfigurationError(f"{where}: ordered= needs a queue with a single active consumer, not an Existing one")
    _check_values(asked, where)
    _check_by(asked.by, kinds, where)
    return asked


def _check_values(asked: Ordered, where: str) -> None:
    if type(asked.partitions) is not int or asked.partitions not in _PARTITIONS:
        raise ConfigurationError(f"{where}: Ordered(partitions={asked.partitions!r}); give a power of two from 1 to 64")
    if asked.when_dead not in ("hold", "go-on"):
        raise ConfigurationError(f"{where}: Ordered(when_dead={asked.when_dead!r}); give 'hold' or 'go-on'")
    if type(asked.parked) is not int or not 1 <= asked.parked <= _MOST_PARKED:
        raise ConfigurationError(
            f"{where}: Ordered(parked={asked.parked!r}); give a whole number from 1 to {_MOST_PARKED}"
        )


def _check_by(by: By | None, kinds: Mapping[str, tuple[Kind, ...]], where: str) -> None:
    if by is not None and not isinstance(by, str) and not callable(by):
        raise ConfigurationError(f"{where}: Ordered(by={by!r}); give the name of a field, or a function of the event")
    if inspect.iscoroutinefunction(by):
        raise ConfigurationError(f"{where}: Ordered(by=) is an async function; give a plain one")
    for kind in (kind for taken in kinds.values() for kind in taken):
        _check_kind(by, kind, where)


def _check_kind(by: By | None, kind: Kind, where: str) -> None:
    event = kind if issubclass(kind, Event) else None
    if by is None and (event is None or event.__event_key__ is None):
        raise ConfigurationError(
            f"{where} is ordered, and {kind.__name__} has no key; "
            "write class X(Event, key='its_field'), or Ordered(by=...)"
        )
    if isinstance(by, str) and kind is bytes:
        raise ConfigurationError(f"{where}: Ordered(by={by!r}): bytes have no fields; give a function of them")
    if isinstance(by, str) and event is not None and by not in event.model_fields:
        raise ConfigurationError(f"{where}: {kind.__name__} has no field {by!r} for Ordered(by=)")
