"""Handlers as data: what a registered function takes, where its messages come from and how it is run."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from ..broker import (
    Binding,
    Clock,
    Exchange,
    Existing,
    Topology,
    delayed_to_stream,
    events_topology,
    existing_queue,
    ladder,
    matches,
    ordered_queue,
    registry,
    work_queue,
)
from ..config import BrokerSettings, Settings
from ..events import (
    ConfigurationError,
    Event,
    HoldfastError,
    Incoming,
    Kind,
    Message,
    UnknownType,
    UnsupportedVersion,
    check_fields,
    decode,
    lineage,
)
from ..events.reading import Reader
from ..events.reading import reader as make_reader
from ..idempotency import Source
from ..telemetry import Emit
from .context import Context
from .ordering import Ordered
from .retry import Retry

if TYPE_CHECKING:
    from ..sql import Database

Handler: TypeAlias = Callable[[Any, Context], Awaitable[Any]]
"""What middleware receives and returns: the user's function, made uniform."""

Middleware: TypeAlias = Callable[[Handler], Handler]

Key: TypeAlias = str | Callable[[Any], Any]
"""What makes an event the same one: the name of a field, or a function of the event."""

OnOutage: TypeAlias = Literal["pause", "process"]

Enter: TypeAlias = Callable[[Any, str], tuple[str, Mapping[str, Any]]]
"""Returns the statement that writes the inbox row of an event, and reads what its function needs first, and the
parameters that are not of that row. Called with the event and the name of the schema."""


Committed: TypeAlias = Callable[[], Awaitable[None]]
"""What is called after a commit that wrote events."""


class Companion(Protocol):
    """What runs next to a handler in its database, such as the time limits of sagas."""

    async def check(self) -> None:
        """Raise `ConfigurationError` for what the database has and this handler does not know."""
        ...

    async def fire(self) -> float | None:
        """Do what is due. Returns when the next is, in seconds since 1970."""
        ...

    async def run(self) -> None:
        """Do what is due, again and again, until cancelled."""
        ...


MakeCompanion: TypeAlias = Callable[[Settings, Clock, Emit, Committed], Companion]


@dataclass(slots=True, eq=False)
class HandlerSpec:
    """One registered handler. `kinds` says of each event type what it becomes: classes of one or more versions, or
    `dict` or `bytes`. `publishes` are the events it may publish; None where it did not say.
    `exchange` is the one its queue is bound to, where it is not that of the settings; `arguments` are its queue's own.
    A queue that `is_existing` is somebody else's. A function with `enter` is one of Holdfast's own: it gets what opened
    the transaction instead of its session, and `run.read` has what the statement of `enter` read.

    `readers` say how each event type is read. `prepare` makes them: upcasts may be declared after the handler.
    """

    name: str
    queue: str
    function: Callable[..., Any]
    kinds: Mapping[str, tuple[Kind, ...]]
    publishes: tuple[type[Event], ...] | None
    takes_context: bool
    is_async: bool
    retry: Retry
    timeout: float
    concurrency: int | None
    prefetch: int | None
    idempotent: bool
    key: Key | None
    on_outage: OnOutage | None
    within: "Database[Any] | None" = None
    exchange: str | Existing | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    is_existing: bool = False
    enter: Enter | None = None
    companion: MakeCompanion | None = None
    ordered: Ordered | None = None
    readers: Mapping[str, Reader] = field(init=False, default_factory=dict, repr=False)

    @property
    def events(self) -> tuple[str, ...]:
        """The routing keys its queue is bound for."""
        return tuple(self.kinds)

    @property
    def publish_types(self) -> frozenset[str] | None:
        """The types it may publish; None where it did not say."""
        return None if self.publishes is None else frozenset(event.__event_type__ for event in self.publishes)

    def prepare(self, older: Mapping[str, int]) -> None:
        """Make the readers, and check that what it publishes can be had in the versions that `older` asks for.

        Raises `ConfigurationError` where a known version cannot be upcast to one that the handler takes, or an event
        not be downcast to the version that is asked for.
        """
        self.readers = self._make_readers()
        for event in self.publishes or ():
            check_fields(event)
            wanted = older.get(event.__event_type__, event.__event_version__)
            if wanted < event.__event_version__ and wanted not in {e.__event_version__ for e in lineage(event)}:
                raise ConfigurationError(
                    f"handler {self.name!r}: HOLDFAST_PUBLISHER__VERSIONS asks for {event.__event_type__} version "
                    f"{wanted}, and no @downcast leads from {event.__name__} to it"
                )

    def read(self, incoming: Incoming) -> Any:
        """Return the event as the handler takes it. Raises `UnknownType`, `UnsupportedVersion`, `Unreadable`."""
        if not self.readers:
            self.readers = self._make_readers()
        metadata = incoming.metadata
        reader = self.readers.get(metadata.event_type) or self._by_pattern(metadata.event_type)
        if reader is None:
            raise UnknownType(
                f"{metadata.event_type[:100]!r} is not an event of handler {self.name!r}, "
                f"which takes {', '.join(self.events)}"
            )
        reading = reader.versions.get(metadata.version) or reader.otherwise(metadata.version)
        if reading is None:
            raise UnsupportedVersion(
                f"{metadata.event_type} {_unlike(metadata.version, reader)} that handler {self.name!r} knows"
            )
        event = decode(reading.decoder, incoming.message)
        return event if reading.casts is None else reading.casts(event)

    def readings(self) -> Mapping[tuple[str, int], Callable[[Message], Any]]:
        """Return what `read` does, by event type and version, for the versions that need no upcast."""
        return {
            (key, version): partial(decode, reading.decoder)
            for key, reader in self.readers.items()
            for version, reading in reader.versions.items()
            if reading.casts is None
        }

    def key_of(self, event: Any) -> str | None:
        """Return the key that `key=` gives for an event; None if the event's own id is its key.

        Raises `HoldfastError` if the key is empty, and anything the user's function raises.
        """
        if self.key is None:
            return None
        if callable(self.key):
            key = self.key(event)
        else:
            key = event.get(self.key) if isinstance(event, dict) else getattr(event, self.key)
        if key is None or key == "":
            raise HoldfastError(f"key= of handler {self.name!r} is empty for this event")
        return str(key)

    def claims(self, settings: Settings) -> bool:
        """Return whether its events are claimed. In a transaction the inbox decides: a claim store that nobody named
        is not needed, but for an ordered handler: nothing else counts the processes that its event kills."""
        is_needed = self.within is None or self.ordered is not None
        return self.idempotent and (is_needed or settings.idempotency.url is not None)

    def pauses(self, settings: Settings) -> bool:
        """Return whether it stops while the claim store is unavailable. A transaction has its inbox, and goes on."""
        usual = "pause" if self.ordered is not None else settings.idempotency.on_outage
        on_outage = self.on_outage or ("process" if self.within is not None else usual)
        return self.claims(settings) and on_outage == "pause"

    def _make_readers(self) -> Mapping[str, Reader]:
        return {key: make_reader(kinds, f"handler {self.name!r}") for key, kinds in self.kinds.items()}

    def _by_pattern(self, event_type: str) -> Reader | None:
        patterns = ((key, reader) for key, reader in self.readers.items() if "*" in key or "#" in key)
        return next((reader for key, reader in patterns if matches(key, event_type)), None)


def _unlike(version: int, known: Reader) -> str:
    versions = sorted(known.versions)
    if version > versions[-1]:
        return f"version {version} is newer than {versions[-1]}, the newest"
    named = f"version {version} is" if version else "has a version that is no whole number from 1, so it is"
    return f"{named} none of {', '.join(map(str, versions))}, the versions"


def topology_of(handlers: Iterable[HandlerSpec], settings: BrokerSettings) -> Topology:
    """Return the events exchange with its stream, the delay ladder, and the queues and bindings of each handler."""
    topology = events_topology(settings) + ladder.ladder(settings.max_delay) + registry() + delayed_to_stream(settings)
    for handler in handlers:
        topology += _part_of(handler, settings)
    return topology


def sources_of(handler: HandlerSpec, settings: BrokerSettings) -> list[Source]:
    """Return the exchanges and keys by which events reach a handler's queue. A queue or exchange of others may be bound
    to the exchange of the settings as well."""
    own = handler.exchange or settings.exchange
    in_memory = settings.url.get_secret_value().startswith("memory:")
    exchanges = {own.name if isinstance(own, Existing) else own}
    if handler.is_existing or in_memory:
        exchanges.add(settings.exchange)
    return [(exchange, key) for exchange in sorted(exchanges) for key in handler.events]


def _part_of(handler: HandlerSpec, settings: BrokerSettings) -> Topology:
    """Return the queues and bindings of one handler. A broker in memory has nothing of others: they are made there, and
    bound to the exchange of the settings as well."""
    in_memory = settings.url.get_secret_value().startswith("memory:")
    if handler.is_existing and not in_memory:
        return existing_queue(handler.queue) + ladder.arrivals(handler.queue)  # to which its retries come back
    own = handler.exchange or settings.exchange
    name, existing = (own.name, not in_memory) if isinstance(own, Existing) else (own, False)
    kind, keys, queue = settings.queue_type, handler.events, handler.queue
    if handler.ordered is not None:
        partitions = handler.ordered.partitions
        part = ordered_queue(queue, exchange=name, keys=keys, partitions=partitions, arguments=handler.arguments)
    else:
        part = work_queue(queue, kind=kind, exchange=name, keys=keys, arguments=handler.arguments)
    if in_memory:
        part += Topology(bindings=tuple(Binding(settings.exchange, queue, key) for key in keys))
    delayed = keys if in_memory or name == settings.exchange else ()
    return Topology(exchanges=(Exchange(name, existing=existing),)) + part + ladder.arrivals(queue, delayed)
