"""Stages, and the transitions between them, as the class of a saga declares them."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic, TypeAlias, TypeVar

from ..events import Event
from .step import Step

E = TypeVar("E", bound=Event)
S = TypeVar("S")
Result = TypeVar("Result", bound="Awaitable[None] | None")
DECLARED = "__holdfast_transitions__"


class Stage:
    """A stage of a saga; the attribute that holds it names it.

    Args:
        limit: How long a saga may rest here; `late` declares what happens then. Without it there is no limit.
        end: Whether the saga ends here.
        compensated: Whether a saga comes here once all that it did is undone. Such a stage is an end too.
    """

    def __init__(self, *, limit: timedelta | None = None, end: bool = False, compensated: bool = False) -> None:
        self.name = ""
        self.limit = None if limit is None else limit.total_seconds()
        self.end = end or compensated
        self.compensated = compensated

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = self.name or name

    def __deepcopy__(self, _: Any) -> "Stage":
        return self

    def __repr__(self) -> str:
        return f"Stage({self.name})"


Stages: TypeAlias = Stage | tuple[Stage, ...]
COMPENSATING, STUCK, COMPENSATED = Stage(), Stage(), Stage(compensated=True)
COMPENSATING.name, STUCK.name, COMPENSATED.name = "compensating", "stuck", "compensated"


@dataclass(frozen=True, slots=True)
class Transition:
    """One arrow of the graph: at a stage (None: where there is no saga yet) an event (None: the limit of the stage)
    leads to one of the stages `to`, or leaves the saga where it is. `method` is called with it."""

    event: type[Event] | None
    at: Stage | None
    to: tuple[Stage, ...]
    method: Callable[..., Any] | None = None
    name: str = ""


class Declaration:
    """A declared transition that needs no method, or the decorator of its method."""

    def __init__(self, event: type[Event] | None, at: tuple[Stage | None, ...], to: Stages | None) -> None:
        self.event, self.at, self.to = event, at, tuple_of(to)

    def declare(self, method: Any) -> Any:
        """Note on a method that it belongs to this transition."""
        setattr(method, DECLARED, (*getattr(method, DECLARED, ()), self))
        return method

    def transitions(self, name: str, method: Callable[..., Any] | None) -> list[Transition]:
        """Return the transitions, one for each stage."""
        return [Transition(self.event, at, self.to, method, name) for at in self.at]


class On(Declaration, Generic[E]):
    """See `on`."""

    def __call__(self, method: Callable[[S, E, Step], Result]) -> Callable[[S, E, Step], Result]:
        return self.declare(method)  # type: ignore[no-any-return]


class Begins(Declaration, Generic[E]):
    """See `begins`."""

    def __call__(self, method: Callable[[E, Step], S]) -> Callable[[E, Step], S]:
        return self.declare(method)  # type: ignore[no-any-return]


class Late(Declaration):
    """See `late`."""

    def __call__(self, method: Callable[[S, Step], Result]) -> Callable[[S, Step], Result]:
        return self.declare(method)  # type: ignore[no-any-return]


def on(event: type[E], *, at: Stages, to: Stages | None = None) -> On[E]:
    """Declare that an event is taken at a stage, and to which it leads.

    As a decorator it calls the method with the event and a `Step`; assigned to a name it is a transition with nothing
    to do.

    Args:
        event: The class of the event.
        at: The stage, or several.
        to: The stage that the saga goes to. With several the method chooses one by `step.goto`. Without it the saga
            stays where it is, unless the method compensates.

    Returns:
        A decorator, which is also the transition of its own.
    """
    return On(event, tuple_of(at), to)


def begins(event: type[E], *, to: Stages) -> Begins[E]:
    """Declare that an event begins a saga. Decorates a static method of event and `Step` that returns the saga.

    Args:
        event: The class of the event.
        to: The stage in which the saga begins. With several the method chooses one by `step.goto`.

    Returns:
        A decorator.
    """
    return Begins(event, (None,), to)


def late(stage: Stage, *, to: Stages | None = None) -> Late:
    """Declare what happens to a saga that is over the limit of a stage. Like `on`; the method gets a `Step` alone.

    Args:
        stage: The stage, which has a `limit`.
        to: The stage that the saga goes to. With several the method chooses one by `step.goto`. Without it the saga
            stays where it is, unless the method compensates.

    Returns:
        A decorator, which is also the transition of its own.
    """
    return Late(None, (stage,), to)


def tuple_of(stages: Stages | None) -> tuple[Stage, ...]:
    """Return stages as a tuple."""
    return () if stages is None else (stages,) if isinstance(stages, Stage) else tuple(stages)


def in_words(seconds: float) -> str:
    """Return a duration: `15 min`, `3 d`."""
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"
