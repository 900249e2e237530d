"""Handlers as data: what a registered function takes, where its messages come from and how it is run."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias

from ..broker import matches
from ..config import Settings
from ..events import (
    ConfigurationError,
    Event,
    HoldfastError,
    Kind,
    Message,
    Metadata,
    Reader,
    UnknownType,
    UnsupportedVersion,
    decode,
    lineage,
    reader,
)
from .context import Context
from .retry import Retry

Handler: TypeAlias = Callable[[Any, Context], Awaitable[Any]]
"""What middleware receives and returns: the user's function, made uniform."""

Middleware: TypeAlias = Callable[[Handler], Handler]

Key: TypeAlias = str | Callable[[Any], Any]
"""What makes an event the same one: the name of a field, or a function of the event."""

OnOutage: TypeAlias = Literal["pause", "process"]


@dataclass(frozen=True)  # no slots: `readers` is kept once it was asked for
class HandlerSpec:
    """One registered handler. `kinds` says of each event type what it becomes: classes of one or more versions, or
    `dict` or `bytes`. `publishes` are the events it may publish; None where it did not say."""

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

    @property
    def events(self) -> tuple[str, ...]:
        """The routing keys its queue is bound for."""
        return tuple(self.kinds)

    @property
    def publish_types(self) -> frozenset[str] | None:
        """The types it may publish; None where it did not say."""
        return None if self.publishes is None else frozenset(event.__event_type__ for event in self.publishes)

    @cached_property
    def readers(self) -> Mapping[str, Reader]:
        """How each event type is read. Made at start: upcasts may be declared after the handler.

        Raises `ConfigurationError` where a known version cannot be upcast to one that the handler takes.
        """
        return {key: reader(kinds, f"handler {self.name!r}") for key, kinds in self.kinds.items()}

    def prepare(self, older: Mapping[str, int]) -> None:
        """Make the readers now, and see that what it publishes can be had in the versions that `older` asks for.

        Raises `ConfigurationError`.
        """
        assert self.readers
        for event in self.publishes or ():
            wanted = older.get(event.__event_type__, event.__event_version__)
            if wanted < event.__event_version__ and wanted not in {e.__event_version__ for e in lineage(event)}:
                raise ConfigurationError(
                    f"handler {self.name!r}: HOLDFAST_PUBLISHER__VERSIONS asks for {event.__event_type__} version "
                    f"{wanted}, and no @downcast leads from {event.__name__} to it"
                )

    def read(self, message: Message, metadata: Metadata) -> Any:
        """The event as the handler takes it. Raises `UnknownType`, `UnsupportedVersion`, `Unreadable`."""
        found = self.readers.get(metadata.event_type) or self._by_pattern(metadata.event_type)
        if found is None:
            raise UnknownType(
                f"{metadata.event_type[:100]!r} is not an event of handler {self.name!r}, "
                f"which takes {', '.join(self.events)}"
            )
        reading = found.versions.get(metadata.version) or found.otherwise(metadata.version)
        if reading is None:
            raise UnsupportedVersion(
                f"{metadata.event_type} version {metadata.version} is {_unlike(metadata.version, found)} "
                f"that handler {self.name!r} knows"
            )
        event = decode(reading.decoder, message)
        return event if reading.casts is None else reading.casts(event)

    def key_of(self, event: Any) -> str | None:
        """What `key=` makes of the event; None where the event's own id is its key. Raises `HoldfastError` for nothing,
        and whatever the user's function does."""
        if self.key is None:
            return None
        if callable(self.key):
            found = self.key(event)
        else:
            found = event.get(self.key) if isinstance(event, dict) else getattr(event, self.key)
        if found is None or found == "":
            raise HoldfastError(f"key= of handler {self.name!r} is empty for this event")
        return str(found)

    def pauses(self, settings: Settings) -> bool:
        """Whether it stops where the claim store is away."""
        return self.idempotent and (self.on_outage or settings.idempotency.on_outage) == "pause"

    def _by_pattern(self, event_type: str) -> Reader | None:
        return next(
            (found for key, found in self.readers.items() if _is_pattern(key) and matches(key, event_type)), None
        )


def _unlike(version: int, known: Reader) -> str:
    versions = sorted(known.versions)
    if version > versions[-1]:
        return f"newer than {versions[-1]}, the newest"
    return f"none of {', '.join(map(str, versions))}, the versions"


def _is_pattern(key: str) -> bool:
    return "*" in key or "#" in key
