"""Handlers as data: what a registered function takes, where its messages come from and how it is run."""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from ..broker import matches
from ..config import Settings
from ..events import (
    ConfigurationError,
    Event,
    HoldfastError,
    Message,
    Metadata,
    UnknownType,
    UnsupportedVersion,
    decode,
    decoder_for,
)
from ..events.codec import Decoder
from .context import Context
from .retry import Retry
from .signature import Kind, is_async, signature

Handler: TypeAlias = Callable[[Any, Context], Awaitable[Any]]
"""What middleware receives and returns: the user's function, made uniform."""

Middleware: TypeAlias = Callable[[Handler], Handler]

Key: TypeAlias = str | Callable[[Any], Any]
"""What makes an event the same one: the name of a field, or a function of the event."""

OnOutage: TypeAlias = Literal["pause", "process"]

_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,180}")
_PATTERN = re.compile(r"[A-Za-z0-9_*#-]+(\.[A-Za-z0-9_*#-]+)*")


@dataclass(frozen=True, slots=True)
class HandlerSpec:
    """One registered handler. `events` are routing keys; `kinds` says what each becomes."""

    name: str
    queue: str
    function: Callable[..., Any]
    kinds: Mapping[str, Kind]
    takes_context: bool
    is_async: bool
    retry: Retry
    timeout: float
    concurrency: int | None
    prefetch: int | None
    idempotent: bool
    key: Key | None
    on_outage: OnOutage | None
    decoders: Mapping[str, tuple[Decoder, int | None]]

    @property
    def events(self) -> tuple[str, ...]:
        return tuple(self.kinds)

    def read(self, message: Message, metadata: Metadata) -> Any:
        """The event as the handler takes it. Raises `UnknownType`, `UnsupportedVersion`, `Unreadable`."""
        found = self.decoders.get(metadata.event_type) or self._by_pattern(metadata.event_type)
        if found is None:
            raise UnknownType(
                f"{metadata.event_type[:100]!r} is not an event of handler {self.name!r}, "
                f"which takes {', '.join(self.events)}"
            )
        decoder, newest = found
        if newest is not None and metadata.version > newest:
            raise UnsupportedVersion(
                f"{metadata.event_type} version {metadata.version} is newer than {newest}, "
                f"the newest that handler {self.name!r} knows"
            )
        return decode(decoder, message)

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

    def _by_pattern(self, event_type: str) -> tuple[Decoder, int | None] | None:
        return next(
            (found for key, found in self.decoders.items() if _is_pattern(key) and matches(key, event_type)), None
        )


def handler_spec(
    worker: str,
    function: Callable[..., Any],
    events: tuple[type[Event] | str, ...],
    *,
    name: str | None,
    queue: str | None,
    retry: Retry,
    timeout: float,
    concurrency: int | None,
    prefetch: int | None,
    idempotent: bool,
    key: Key | None,
    on_outage: OnOutage | None,
) -> HandlerSpec:
    """Check what the user wrote and make it data. Raises `ConfigurationError`, one line naming the handler."""
    title = name or str(getattr(function, "__name__", type(function).__name__))
    where = f"handler {title!r} of worker {worker!r}"
    queue = queue or f"{worker}.{title}"
    annotation, takes_context = signature(function, where)
    kinds = _kinds(events, annotation, where)
    for label, text in (("name", title), ("queue", queue)):
        if not _NAME.fullmatch(text):
            raise ConfigurationError(f"{where}: {label}={text!r} may hold letters, digits and _.:- alone, at most 180")
    if not isinstance(retry, Retry):
        raise ConfigurationError(f"{where}: retry={retry!r}; give Retry(attempts=...)")
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout < float("inf"):
        raise ConfigurationError(f"{where}: timeout={timeout!r}; give seconds above 0")
    for label, number in (("concurrency", concurrency), ("prefetch", prefetch)):
        if number is not None and (type(number) is not int or not 1 <= number <= 65_535):
            raise ConfigurationError(f"{where}: {label}={number!r}; give a whole number from 1 to 65535, or None")
    if on_outage not in (None, "pause", "process"):
        raise ConfigurationError(f"{where}: on_outage={on_outage!r}; give 'pause', 'process', or None for the setting")
    _check_key(key, kinds, idempotent, where)
    return HandlerSpec(
        name=title,
        queue=queue,
        function=function,
        kinds=kinds,
        takes_context=takes_context,
        is_async=is_async(function),
        retry=retry,
        timeout=timeout,
        concurrency=concurrency,
        prefetch=prefetch,
        idempotent=idempotent,
        key=key,
        on_outage=on_outage,
        decoders={key: (decoder_for(kind), _newest(kind)) for key, kind in kinds.items()},
    )


def _check_key(key: Key | None, kinds: Mapping[str, Kind], idempotent: bool, where: str) -> None:
    if key is None:
        return
    if not idempotent:
        raise ConfigurationError(f"{where}: key= means nothing with idempotent=False")
    if callable(key):
        return
    if not isinstance(key, str):
        raise ConfigurationError(f"{where}: key={key!r}; give the name of a field, or a function of the event")
    for kind in kinds.values():
        if kind is bytes:
            raise ConfigurationError(f"{where}: key={key!r}: a body of bytes has no fields; give a function of it")
        if isinstance(kind, type) and issubclass(kind, Event) and key not in kind.model_fields:
            raise ConfigurationError(f"{where}: {kind.__name__} has no field {key!r} for key=")


def _kinds(events: tuple[type[Event] | str, ...], annotation: tuple[Kind, ...], where: str) -> dict[str, Kind]:
    kinds: dict[str, Kind] = {}
    for event in events or tuple(a for a in annotation if isinstance(a, type) and issubclass(a, Event)):
        if isinstance(event, str):
            key, kind = event, _kind_of_name(annotation)
            if not _PATTERN.fullmatch(key) or len(key) > 150:
                raise ConfigurationError(f"{where}: event {key!r} is not a dotted name such as 'order.created'")
        elif isinstance(event, type) and issubclass(event, Event) and event is not Event:
            key, kind = event.__event_type__, event
            _check_taken(event, annotation, where)
        else:
            raise ConfigurationError(f"{where}: {event!r} is neither an Event class nor the name of an event type")
        if key in kinds:
            raise ConfigurationError(f"{where}: event type {key!r} is given twice")
        kinds[key] = kind
    if not kinds:
        raise ConfigurationError(f"{where} takes no event; write @worker.handler(SomeEvent)")
    return kinds


def _check_taken(event: type[Event], annotation: tuple[Kind, ...], where: str) -> None:
    """Where the first parameter says what it takes, that must be what it will get."""
    if annotation and not any(isinstance(taken, type) and issubclass(event, taken) for taken in annotation):
        names = " | ".join(getattr(taken, "__name__", str(taken)) for taken in annotation)
        raise ConfigurationError(f"{where} is for {event.__name__}, but its first parameter is annotated {names}")


def _kind_of_name(annotation: tuple[Kind, ...]) -> Kind:
    """What an event named by text becomes: what the parameter says, where that is one thing, or else a `dict`."""
    return annotation[0] if len(annotation) == 1 else dict


def _newest(kind: Kind) -> int | None:
    return kind.__event_version__ if isinstance(kind, type) and issubclass(kind, Event) else None


def _is_pattern(key: str) -> bool:
    return "*" in key or "#" in key
