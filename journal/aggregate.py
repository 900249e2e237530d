"""Aggregates: state that is nothing but the events it is made from."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, PrivateAttr

from ..events import ConfigurationError, Event
from .recorded import Reading, Recorded

A = TypeVar("A", bound="Aggregate")
E = TypeVar("E", bound=Event)
_MARK = "__applies__"


def applies(*events: type[E]) -> Callable[[Callable[[A, E], None]], Callable[[A, E], None]]:
    """Have a method of an aggregate apply these events: it changes the state, and decides nothing.

    Args:
        events: The classes of the events.

    Returns:
        A decorator.

    Raises:
        ConfigurationError: One is no Event class, there is none, or the method is an async function.
    """
    for event in events:
        if not (isinstance(event, type) and issubclass(event, Event)):
            raise ConfigurationError(f"@applies({event!r}): give Event classes")
    if not events:
        raise ConfigurationError("@applies(): give the Event classes that the method applies")

    def mark(method: Callable[[A, E], None]) -> Callable[[A, E], None]:
        if inspect.iscoroutinefunction(method):
            raise ConfigurationError(f"@applies: {method.__name__} is an async function; write it with def")
        setattr(method, _MARK, events)
        return method

    return mark


@dataclass(slots=True)
class _History:
    """An aggregate's version and that of its snapshot, and the events that are to be appended."""

    at: int = 0
    kept_at: int = 0
    recorded: list[Event] = field(default_factory=list)


class Aggregate(BaseModel):
    """State that is made from its events, and decides which come next.

    Class arguments: `key`, the field that identifies it; `name`, what its events are kept under (default: the name of
    the class in small letters); `shape`, a whole number to be raised when the fields change, so that older snapshots
    are not read. Every field but the key has a default: the state before the first event.

    Raises `ConfigurationError` at import for a wrong key, a field without a default, or an event with two methods.
    """

    model_config = ConfigDict(extra="forbid")

    __aggregate_key__: ClassVar[str] = ""
    __stream__: ClassVar[str] = ""
    __shape__: ClassVar[int] = 1
    __appliers__: ClassVar[dict[type[Event], str]] = {}
    __reading__: ClassVar[Reading]

    _history: _History = PrivateAttr(default_factory=_History)

    @classmethod
    def __pydantic_init_subclass__(cls, *, key: str = "", name: str = "", shape: int = 1, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        where = f"class {cls.__name__}"
        cls.__aggregate_key__ = key or cls.__aggregate_key__
        cls.__stream__, cls.__shape__ = name or cls.__name__.lower(), shape
        if cls.__aggregate_key__ not in cls.model_fields:
            raise ConfigurationError(f"{where}: key={cls.__aggregate_key__!r} is not one of its fields")
        for of, info in cls.model_fields.items():
            if info.is_required() and of != cls.__aggregate_key__:
                raise ConfigurationError(f"{where}: field {of!r} has no default for the time before the first event")
        cls.__appliers__ = _appliers(cls, where)
        cls.__reading__ = Reading(cls.__appliers__, f"aggregate {cls.__name__}")

    def __init_subclass__(cls, *, key: str = "", name: str = "", shape: int = 1, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)

    def record(self, event: Event) -> None:
        """Apply an event, and keep it to be appended by `Journal.append`.

        Args:
            event: The event.

        Raises:
            ConfigurationError: No method applies it, or its key is another aggregate's.
        """
        key, own = type(event).__event_key__, str(getattr(self, self.__aggregate_key__))
        if key is not None and str(getattr(event, key)) != own:
            raise ConfigurationError(f"{type(self).__name__} {own!r}: records an event of {getattr(event, key)!r}")
        self._apply(event)
        self._history.recorded.append(event)

    def _apply(self, event: Event) -> None:
        method = self.__appliers__.get(type(event))
        if method is None:
            raise ConfigurationError(
                f"{type(self).__name__}: no method @applies({type(event).__name__}), which it records"
            )
        getattr(self, method)(event)


def _appliers(cls: type[Aggregate], where: str) -> dict[type[Event], str]:
    appliers: dict[type[Event], str] = {}
    for name in dir(cls):
        for event in getattr(inspect.getattr_static(cls, name), _MARK, ()):
            if event in appliers:
                raise ConfigurationError(f"{where}: {appliers[event]} and {name} both apply {event.__name__}")
            appliers[event] = name
    return appliers


def replay(aggregate: Aggregate, recorded: Recorded) -> None:
    """Apply an event of its history. Raises what `Reading.read` raises."""
    aggregate._apply(aggregate.__reading__.read(recorded))
    history = aggregate._history
    history.at = recorded.stream_version or history.at + 1


def resume(aggregate: Aggregate, version: int) -> None:
    """Say that the state is that of a version, read from a snapshot."""
    history = aggregate._history
    history.at = history.kept_at = version


def version_of(aggregate: Aggregate) -> int:
    """Return how many events have made it, with those that are taken to be appended."""
    return aggregate._history.at


def take_recorded(aggregate: Aggregate) -> tuple[int, list[Event]]:
    """Return the version before the events that it has recorded, and these. They are no longer to be appended."""
    history = aggregate._history
    before, events = history.at, history.recorded
    history.at, history.recorded = before + len(events), []
    return before, events


def is_worth_a_snapshot(aggregate: Aggregate, every: int) -> bool:
    """Whether so many events have come since the last snapshot. Then it is taken to be made."""
    history = aggregate._history
    if history.at - history.kept_at < every:
        return False
    history.kept_at = history.at
    return True
