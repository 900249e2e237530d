"""Readers: the ways from a message of any version to what a handler takes. Made once, at start."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from .codec import Decoder, Kind, decoder_for
from .errors import ConfigurationError, Unreadable
from .event import Event, check_fields, classes_of, vicinity
from .versions import Cast, fault_of, steps, title


@dataclass(frozen=True, slots=True)
class Casts:
    """The steps that carry an event of an older version to one that a handler takes."""

    steps: tuple[Cast, ...]

    def __call__(self, event: Any) -> Any:
        """Return the event as the last step's version. Raises `Unreadable`."""
        for cast in self.steps:
            try:
                event = cast(event)
            except ValidationError as error:  # its text quotes the payload
                raise Unreadable(f"the upcast of {title(type(event))} failed: {fault_of(error)}") from None
            except Exception as error:
                raise Unreadable(f"the upcast of {title(type(event))} failed: {fault_of(error)}") from error
        return event


@dataclass(frozen=True, slots=True)
class Reading:
    """The way from a body of one version to what a handler takes: the decoder of its class, then upcasts, if any."""

    decoder: Decoder
    casts: Casts | None = None


@dataclass(frozen=True, slots=True)
class Reader:
    """The ways to read messages of one event type: one for each version, or one for all (`dict`, `bytes`)."""

    versions: Mapping[int, Reading] = field(default_factory=dict)
    whatever: Reading | None = None

    def otherwise(self, version: int) -> Reading | None:
        """Return the way for a version that is not among `versions`; None for an unknown one, and for 0.

        One older than all known versions is read as the oldest: no upcast was needed for it.
        """
        if self.whatever is None and 0 < version < (oldest := min(self.versions)):
            return self.versions[oldest]
        return self.whatever


def reader(kinds: Iterable[Kind], where: str) -> Reader:
    """Return the reader for what a handler takes of one type: event classes, one a version, or `dict` or `bytes`.

    Raises `ConfigurationError` where a version that this program knows has no way to one of them.
    """
    taken: dict[int, type[Event]] = {}
    for kind in kinds:
        if not issubclass(kind, Event):
            return Reader(whatever=Reading(decoder_for(kind)))
        taken[kind.__event_version__] = kind
    ways = {version: Reading(decoder_for(kind)) for version, kind in taken.items()}
    for kind in taken.values():
        check_fields(kind)
    seen = dict(taken)
    for older in _older(taken):
        if (twin := seen.setdefault(older.__event_version__, older)) is not older:
            raise ConfigurationError(
                f"{where}: {title(older)} is both {twin.__module__}.{twin.__name__} and "
                f"{older.__module__}.{older.__name__}; one of them must go"
            )
        ways[older.__event_version__] = Reading(decoder_for(older), Casts(_chain(older, taken, where)))
    return Reader(ways)


def _older(taken: Mapping[int, type[Event]]) -> Iterable[type[Event]]:
    """Yield known classes of the type, older than the newest that is taken, that belong to the same family.

    They are upcast to one that is taken, or stand next to it. Another program's class of the same name does not count.
    """
    newest = taken[max(taken)]
    beside = {vicinity(kind) for kind in taken.values()}
    for cls in classes_of(newest.__event_type__):
        if cls.__event_version__ >= newest.__event_version__ or cls in taken.values():
            continue
        if vicinity(cls) in beside or any(step in taken.values() for step in steps(cls)):
            yield cls


def _chain(older: type[Event], taken: Mapping[int, type[Event]], where: str) -> tuple[Cast, ...]:
    casts: list[Cast] = []
    step = older
    while step is not taken.get(step.__event_version__):
        if step.__upcast__ is None:
            wanted = taken[min(version for version in taken if version > older.__event_version__)]
            raise ConfigurationError(
                f"{where}: takes {title(wanted)}, and nothing upcasts version {step.__event_version__} to it; "
                f"write @upcast({step.__name__}, {wanted.__name__}), or let the handler take {step.__name__} as well"
            )
        casts.append(step.__upcast__)
        step = step.__upcast__.target
    return tuple(casts)
