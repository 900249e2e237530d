"""What a worker takes and publishes: every type and version, with who handles and who publishes it."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from ..consumer import Existing, HandlerSpec, Worker
from ..events import ConfigurationError, Event, lineage
from .schema import schema_of


@dataclass(frozen=True, slots=True)
class Role:
    """A handler's part: what it takes from its queue, or what it publishes."""

    handler: str
    queue: str
    exchange: str
    """The exchange its queue is bound to; empty for a queue of others."""


@dataclass(slots=True)
class Entry:
    """One version of an event type."""

    event: type[Event]
    taken: list[Role] = field(default_factory=list)
    published: list[Role] = field(default_factory=list)

    @property
    def type(self) -> str:
        return self.event.__event_type__

    @property
    def version(self) -> int:
        return self.event.__event_version__


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All of a worker's events, by type and version; `raw` are the types and patterns that no class describes."""

    worker: str
    exchange: str
    entries: tuple[Entry, ...]
    raw: tuple[tuple[str, Role], ...]
    silent: tuple[str, ...]
    """Handlers that do not say what they publish."""


def catalogue_of(worker: Worker) -> Catalogue:
    """The events of all handlers. A version that is upcast for a handler is one that it takes.

    Raises `ConfigurationError` where two classes of one type and version differ.
    """
    entries_by_version: dict[tuple[str, int], Entry] = {}
    raw: list[tuple[str, Role]] = []
    for spec in worker.handlers:
        given = spec.exchange or worker.settings.broker.exchange
        exchange = given.name if isinstance(given, Existing) else given
        role = Role(spec.name, spec.queue, "" if spec.is_existing else exchange)
        for key, kinds in spec.kinds.items():
            classes = [kind for kind in kinds if issubclass(kind, Event)]
            if not classes or "*" in key or "#" in key:
                raw.append((key, role))
                continue
            for event in _unique(family for kind in classes for family in lineage(kind)):
                if event in classes or event.__event_version__ <= max(kind.__event_version__ for kind in classes):
                    _entry(entries_by_version, event).taken.append(role)
        for event in _unique(spec.publishes or ()):
            _entry(entries_by_version, event).published.append(role)
    entries = tuple(entries_by_version[key] for key in sorted(entries_by_version))
    return Catalogue(worker.name, worker.settings.broker.exchange, entries, tuple(raw), _silent(worker.handlers))


def _entry(entries_by_version: dict[tuple[str, int], Entry], event: type[Event]) -> Entry:
    entry = entries_by_version.setdefault((event.__event_type__, event.__event_version__), Entry(event))
    if entry.event is not event and schema_of(entry.event) != schema_of(event):
        names = " and ".join(f"{cls.__module__}.{cls.__qualname__}" for cls in (entry.event, event))
        raise ConfigurationError(
            f"{event.__event_type__} version {event.__event_version__} is two different things: {names}"
        )
    return entry


def _unique(events: "Iterator[type[Event]] | tuple[type[Event], ...]") -> list[type[Event]]:
    return list(dict.fromkeys(events))


def _silent(handlers: tuple[HandlerSpec, ...]) -> tuple[str, ...]:
    return tuple(spec.name for spec in handlers if spec.publishes is None)
