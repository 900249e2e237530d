"""Versions of one event type side by side, and the functions that carry an event from one to another."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeVar

from pydantic import ValidationError

from .codec import describe
from .errors import ConfigurationError, PublishError
from .event import Event, classes_of

Function = TypeVar("Function", bound=Callable[..., Any])


class Versioned(Protocol):
    """A class that is one version of something named: an `Event`, or the state of a saga."""

    __event_type__: ClassVar[str]
    __event_version__: ClassVar[int]
    __upcast__: ClassVar["Cast | None"]


@dataclass(frozen=True, slots=True)
class Cast:
    """One step from a version to another. Called with an event of the first, it returns one of `target`."""

    target: type[Any]
    function: Callable[[Any], Any]

    def __call__(self, event: Any) -> Any:
        made = self.function(event)
        if isinstance(made, Mapping):
            made = self.target(**made)
        if not isinstance(made, self.target):
            raise TypeError(f"{_name(self.function)} returned a {type(made).__name__}, not a {self.target.__name__}")
        return made


def upcast(old: type[Versioned], new: type[Versioned]) -> Callable[[Function], Function]:
    """Declare how an event of an older version becomes one of a newer: `@upcast(OrderCreatedV1, OrderCreated)`.

    The function takes the old event and returns the new one, or a `dict` of its fields. Functions form a chain: an
    event takes as many steps as its handler's version needs. Each version has one upcast at most. The state of a saga
    is upcast in the same way.

    Args:
        old: The class of the older version.
        new: The class of the newer version of the same type.

    Returns:
        A decorator that returns the function as it is.

    Raises:
        ConfigurationError: The two are not versions of one type, in rising order.
    """
    return _declare("upcast", old, new, rising=True)


def downcast(new: type[Event], old: type[Event]) -> Callable[[Function], Function]:
    """Declare how an event is published in an older version: `@downcast(OrderCreated, OrderCreatedV1)`.

    It is for consumers that were not upgraded yet; `HOLDFAST_PUBLISHER__VERSIONS` says which types need it.

    Args:
        new: The class of the newer version.
        old: The class of the older version of the same type.

    Returns:
        A decorator that returns the function as it is.

    Raises:
        ConfigurationError: The two are not versions of one type, in falling order.
    """
    return _declare("downcast", new, old, rising=False)


def as_published(event: Event, versions: Mapping[str, int]) -> Event:
    """Return the event in the version that `versions` asks for, by its type; newer ones are downcast.

    Raises `PublishError` where no chain of downcasts leads there, or one of them fails.
    """
    wanted = versions.get(event.__event_type__)
    while wanted is not None and event.__event_version__ > wanted:
        cast = event.__downcast__
        if cast is None or cast.target.__event_version__ < wanted:
            raise PublishError(
                f"{title(type(event))} cannot be published as version {wanted}; "
                f"write @downcast({type(event).__name__}, <the class of version {wanted}>)"
            )
        try:
            event = cast(event)
        except Exception as error:
            raise PublishError(f"the downcast of {title(type(event))} failed: {fault_of(error)}") from error
    return event


def lineage(kind: type[Event]) -> tuple[type[Event], ...]:
    """Return the class and every version of its type that is upcast to it or that it is downcast to, oldest first."""
    family = {kind.__event_version__: kind}
    for older in classes_of(kind.__event_type__):
        if kind in steps(older):
            family[older.__event_version__] = older
    step = kind
    while step.__downcast__ is not None:
        step = step.__downcast__.target
        family.setdefault(step.__event_version__, step)
    return tuple(family[version] for version in sorted(family))


def _declare(
    word: str, source: type[Versioned], target: type[Versioned], *, rising: bool
) -> Callable[[Function], Function]:
    where = f"@{word}({getattr(source, '__name__', source)}, {getattr(target, '__name__', target)})"
    for cls in (source, target):
        if not (isinstance(cls, type) and hasattr(cls, "__event_version__")):
            raise ConfigurationError(f"{where}: {cls!r} is not an Event class")
    if source.__event_type__ != target.__event_type__:
        raise ConfigurationError(f"{where}: {source.__event_type__!r} and {target.__event_type__!r} are two types")
    first, second = source.__event_version__, target.__event_version__
    if (first < second) is not rising or first == second:
        order = "an older version to a newer" if rising else "a newer version to an older"
        raise ConfigurationError(f"{where}: goes from version {first} to {second}; it goes from {order}")

    def declare(function: Function) -> Function:
        if not callable(function) or inspect.iscoroutinefunction(function):
            raise ConfigurationError(f"{where}: write a plain function, not async def: it maps one event to another")
        known = source.__dict__[f"__{word}__"]
        if known is not None and known.target is not target:
            raise ConfigurationError(f"{where}: {source.__name__} has a {word} to {known.target.__name__} already")
        setattr(source, f"__{word}__", Cast(target, function))
        return function

    return declare


def steps(cls: type[Any]) -> Iterator[type[Any]]:
    """Yield the classes to which upcasts lead, the class itself first."""
    yield cls
    while cls.__upcast__ is not None:
        yield (cls := cls.__upcast__.target)


def title(cls: type[Event]) -> str:
    """Return the name of a class in messages."""
    return f"{cls.__event_type__} version {cls.__event_version__}"


def _name(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__name__", function))


def fault_of(error: Exception) -> str:
    """Return what went wrong in a cast, without the payload where pydantic says it."""
    return describe(error) if isinstance(error, ValidationError) else f"{type(error).__name__}: {error}"
