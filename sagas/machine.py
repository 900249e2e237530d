"""The state machine of sagas: what takes an event, whether it is early or late, and what follows. Pure."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, TypeVar

from ..events import Event
from .errors import SagaError, TooEarly
from .stages import COMPENSATING, STUCK, Stage, Transition, in_words
from .step import Step, Undo

if TYPE_CHECKING:
    from .graph import Graph

T = TypeVar("T")
Taken: TypeAlias = Literal["moved", "late", "overdue", "undone", "by hand"]
Sent: TypeAlias = tuple[tuple[Event, float | None], ...]


@dataclass(frozen=True, slots=True)
class Moved(Generic[T]):
    """A saga after a step.

    Attributes:
        state: Its state.
        stage: The stage in which it is now.
        sent: The events that the step published, each with its delay in seconds.
        undo: What is still to be undone, last first.
        due: Seconds until the stage is over its limit; None where it has none.
        reason: Why it compensates; None where it does not.
        taken: How the event was taken.
        has_entered: Whether the step entered its stage, which sets the limit anew.
    """

    state: T
    stage: Stage
    sent: Sent = ()
    undo: tuple[Undo, ...] = ()
    due: float | None = None
    reason: str | None = None
    taken: Taken = "moved"
    has_entered: bool = True

    @property
    def published(self) -> tuple[Event, ...]:
        """The events that the step published."""
        return tuple(event for event, _ in self.sent)

    @property
    def awaited(self) -> Undo | None:
        """The undo whose answer is awaited."""
        return self.undo[0] if self.undo and self.undo[0].is_sent else None


def find(graph: "Graph", before: Moved[Any] | None, event_type: str) -> Transition | Literal["undone", "late"]:
    """Return what takes an event: a transition, the undo that it answers, or nothing as it comes late.

    An event is early if no saga has begun and it begins none, if a stage that can still be reached takes it, or if it
    answers an undo that is still to be published: raises `TooEarly`, and its delivery waits. It is late otherwise.
    """
    if before is None:
        if (first := graph.begins.get(event_type)) is not None:
            return first
        raise TooEarly(f"{graph.saga}: no saga has begun that takes {event_type}")
    at = COMPENSATING if before.stage is STUCK else before.stage
    transition = graph.takes.get((at.name, event_type))
    if transition is not None:
        return transition
    if _is_answer(before, event_type):
        return "undone"
    is_ahead = any((ahead, event_type) in graph.takes for ahead in graph.reachable[at.name])
    if is_ahead or _will_be_answer(graph, before, event_type):
        raise TooEarly(f"{graph.saga}: stage {before.stage.name!r} does not take {event_type} yet")
    return "late"


def call(transition: Transition, state: Any, event: Any, step: Step) -> Any:
    """Call the method of a transition, if it has one. Returns what it returns."""
    if transition.method is None:
        return None
    if transition.at is None:
        return transition.method(event, step)
    return transition.method(state, step) if transition.event is None else transition.method(state, event, step)


def after(graph: "Graph", before: Moved[T] | None, transition: Transition, state: T, step: Step) -> Moved[T]:
    """Return the saga after a transition whose method was called. Raises `SagaError`."""
    pushed, sent = tuple(reversed(step.undos)), tuple(step.sent)
    if before is None:
        return _onwards(graph, Moved(state, COMPENSATING, undo=pushed), transition, step, sent)
    taken: Taken = "overdue" if transition.event is None else "moved"
    if (awaited := before.awaited) is None:
        here = replace(before, state=state, undo=(*pushed, *before.undo), taken=taken)
        return _onwards(graph, here, transition, step, sent)
    rest = (*pushed, *before.undo[1:])  # the one that is awaited goes on
    if transition.event is not None and _is_answer(before, transition.event.__event_type__):
        return unwind(graph, replace(before, state=state, undo=rest, taken="undone"), sent)
    return replace(before, state=state, undo=(awaited, *rest), sent=sent, taken=taken, has_entered=False)


def _onwards(graph: "Graph", here: Moved[T], transition: Transition, step: Step, sent: Sent) -> Moved[T]:
    if step.reason is not None and transition.to and COMPENSATING not in transition.to:
        raise SagaError(
            f"{graph.saga}: {transition.name} compensates: leave its to= out, or add Saga.compensating to it"
        )
    target = _target(transition, step, graph.saga)
    reason = step.reason
    if reason is None and transition.event is None and transition.at is not None:
        reason = f"{transition.at.name}: over its limit of {in_words(transition.at.limit or 0.0)}"
    here = replace(here, reason=reason or here.reason)
    if step.reason is not None or (target is not None and target.compensated and here.undo):
        return unwind(graph, here, sent)
    if target is None:
        return replace(here, sent=sent, has_entered=False)
    undo = () if target.end else here.undo
    return replace(here, stage=target, sent=sent, undo=undo, due=target.limit, has_entered=True)


def _target(transition: Transition, step: Step, saga: str) -> Stage | None:
    if step.chosen is not None and (step.chosen not in transition.to or step.chosen is COMPENSATING):
        raise SagaError(f"{saga}: {transition.name} went to {step.chosen.name!r}, which its to= does not name")
    to = [stage for stage in transition.to if stage is not COMPENSATING]
    if step.chosen is not None or not to:
        return step.chosen
    if len(to) > 1 and step.reason is None:
        names = ", ".join(stage.name for stage in to)
        raise SagaError(f"{saga}: {transition.name} chose none of {names}: call step.goto")
    return to[0]


def unwind(graph: "Graph", here: Moved[T], sent: Sent = ()) -> Moved[T]:
    """Publish what undoes a saga, last first, up to one whose answer is awaited; then its end."""
    undo = here.undo
    while undo:
        first, sent = undo[0], (*sent, (undo[0].event, None))
        if first.until is not None:
            undo = (replace(first, is_sent=True, event_id=None), *undo[1:])
            return replace(here, stage=COMPENSATING, sent=sent, undo=undo, due=first.limit, has_entered=True)
        undo = undo[1:]
    return replace(here, stage=graph.compensated, sent=sent, undo=(), due=None, has_entered=True)


def sent_as(moved: Moved[T], event_id: str) -> Moved[T]:
    """Return a saga whose awaited undo was published under an id."""
    return replace(moved, undo=(replace(moved.undo[0], event_id=event_id), *moved.undo[1:]))


def answered(graph: "Graph", before: Moved[T]) -> Moved[T]:
    """Return a saga whose awaited undo is done."""
    return unwind(graph, replace(before, undo=before.undo[1:], taken="undone"))


def come_late(before: Moved[T]) -> Moved[T]:
    """Return a saga that an event came too late for."""
    return replace(before, sent=(), taken="late", has_entered=False)


def expired(graph: "Graph", before: Moved[Any]) -> Transition | Moved[Any]:
    """Return what happens to a saga that is over the limit of its stage."""
    if before.stage is COMPENSATING:
        return replace(before, stage=STUCK, sent=(), due=None, taken="overdue", has_entered=True)
    return graph.limits.get(before.stage.name) or come_late(before)


def _will_be_answer(graph: "Graph", before: Moved[Any], event_type: str) -> bool:
    """Whether an event answers an undo that is still to be published."""
    answers = graph.undo.values() if before.awaited is None else (undo.until for undo in before.undo[1:])
    return not before.stage.end and any(a is not None and a.__event_type__ == event_type for a in answers)


def _is_answer(before: Moved[Any], event_type: str) -> bool:
    awaited = before.awaited
    return awaited is not None and awaited.until is not None and awaited.until.__event_type__ == event_type
