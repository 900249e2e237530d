"""Every event class of this process, to notice early a type defined twice and a version nobody can read."""

import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeAlias

from .errors import ConfigurationError

if TYPE_CHECKING:
    from .event import Event

Scope: TypeAlias = tuple[str, str]
"""The module of a class, and the class or function around it, if any."""

_known: dict[tuple[str, str], "weakref.ref[type[Event]]"] = {}


def register(cls: "type[Event]") -> None:
    """Remember a class; one defined again, as in a notebook, replaces itself.

    Raises `ConfigurationError` where the same module or function defines another class for the same type and version.
    """
    mine = scope(cls)
    for other in classes_of(cls.__event_type__):
        same = other.__event_version__ == cls.__event_version__ and scope(other) == mine
        if same and other.__qualname__ != cls.__qualname__:
            raise ConfigurationError(
                f"class {cls.__name__}: type {cls.__event_type__!r} version {cls.__event_version__} "
                f"is {other.__name__} already, in the same module; give one of them another type= or version="
            )
    _known[cls.__module__, cls.__qualname__] = weakref.ref(cls)


def classes_of(event_type: str) -> Iterator["type[Event]"]:
    """Yield the living classes of a type, in the order in which they were defined."""
    for key, known in list(_known.items()):
        cls = known()
        if cls is None:
            del _known[key]
        elif cls.__event_type__ == event_type:
            yield cls


def scope(cls: "type[Event]") -> Scope:
    """Return the module and function that define the class."""
    return cls.__module__, cls.__qualname__.rpartition(".")[0]


def vicinity(cls: "type[Event]") -> Scope:
    """Return the same with the modules of one package as one: a version often has a file of its own."""
    module, around = scope(cls)
    return (module if around else module.rpartition(".")[0] or module), around
