"""The graph of a saga: its declarations as data, and what is wrong with them, a line for each fault."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..events import ConfigurationError, Event
from .stages import COMPENSATED, COMPENSATING, DECLARED, STUCK, Declaration, Stage, Transition

_OWN = (COMPENSATING, STUCK)


@dataclass(frozen=True, slots=True)
class Graph:
    """The stages of a saga and its transitions: those that begin it, those by stage and event type, and those of the
    limits by stage. `reachable` has the stages that may follow each. `undo` are the events that take a step back, each
    with the event that answers it."""

    saga: str
    key: str
    stages: Mapping[str, Stage]
    transitions: tuple[Transition, ...]
    begins: Mapping[str, Transition]
    takes: Mapping[tuple[str, str], Transition]
    limits: Mapping[str, Transition]
    undo: Mapping[type[Event], type[Event] | None]
    compensated: Stage
    reachable: Mapping[str, frozenset[str]]

    @property
    def events(self) -> tuple[type[Event], ...]:
        """The events that the saga takes."""
        taken = [t.event for t in self.transitions if t.event is not None]
        return tuple(dict.fromkeys([*taken, *(answer for answer in self.undo.values() if answer is not None)]))


def declarations(cls: type) -> tuple[dict[str, Stage], list[Transition]]:
    """Return the stages and transitions that a class declares."""
    stages, transitions = dict[str, Stage](), list[Transition]()
    for name, attribute in vars(cls).items():
        if isinstance(attribute, Stage):
            stages[name] = attribute
        elif isinstance(attribute, Declaration):
            transitions += attribute.transitions(name, None)
        for declared in getattr(attribute, DECLARED, ()):
            method = getattr(attribute, "__func__", attribute)
            transitions += declared.transitions(name, method)
    return stages, transitions


def graph_of(
    cls: type,
    saga: str,
    key: str,
    stages: Mapping[str, Stage],
    transitions: Iterable[Transition],
    undo: Mapping[type[Event], type[Event] | None],
) -> Graph:
    """Return the graph of a saga. Raises `ConfigurationError`, a line for each fault."""
    transitions = tuple(transitions)
    compensated = next((stage for stage in stages.values() if stage.compensated), COMPENSATED)
    every = {stage.name: stage for stage in (*stages.values(), *_OWN, compensated)}
    graph = Graph(
        saga,
        key,
        every,
        transitions,
        {t.event.__event_type__: t for t in transitions if t.at is None and t.event is not None},
        {(t.at.name, t.event.__event_type__): t for t in transitions if t.at is not None and t.event is not None},
        {t.at.name: t for t in transitions if t.at is not None and t.event is None},
        undo,
        compensated,
        {name: frozenset(_ahead(stage, transitions, compensated)) for name, stage in every.items()},
    )
    faults = [*_faults_of_undo(graph)] or [*_faults(graph, stages)]
    if faults:
        raise ConfigurationError(*(f"saga {cls.__name__}: {fault}" for fault in dict.fromkeys(faults)))
    return graph


def _ahead(stage: Stage, transitions: tuple[Transition, ...], compensated: Stage) -> set[str]:
    """Return the names of the stages that may follow one."""
    ahead, todo = set[str](), [stage]
    while todo:
        here = todo.pop()
        following = [target for t in transitions if t.at is here for target in t.to]
        if not here.end:
            following += [*_OWN, compensated]
        todo += [target for target in following if target.name not in ahead]
        ahead |= {target.name for target in following}
    return ahead - {stage.name}


def _faults(graph: Graph, stages: Mapping[str, Stage]) -> Iterator[str]:
    if not graph.begins:
        yield "no event begins it: declare a static method with @begins"
    if reserved := [name for name in stages if name in ("compensating", "stuck")]:
        yield f"stage {reserved[0]!r} has the name of a stage that every saga has"
        return
    if sum(stage.compensated for stage in stages.values()) > 1:
        yield "two stages are compensated=True"
    seen: dict[tuple[Any, Any], str] = {}
    for transition in graph.transitions:
        taken = (transition.at, transition.event and transition.event.__event_type__)
        yield from _faults_of(transition, graph, seen.setdefault(taken, transition.name))
    yield from _faults_of_versions(graph.events)
    for event in graph.events:
        if graph.key not in event.model_fields:
            yield f"{event.__name__} has no field {graph.key!r}, which is the key of the saga"
    reached = set().union(*({to.name, *graph.reachable[to.name]} for t in graph.begins.values() for to in t.to))
    for name, stage in stages.items():
        if graph.begins and name not in reached:
            yield f"no transition leads to stage {name!r}"
        yield from _faults_of_stage(stage, graph)


def _faults_of(transition: Transition, graph: Graph, first: str) -> Iterator[str]:
    at, event = transition.at, transition.event
    label = f"{transition.name}: {event.__name__ if event is not None else 'the limit'}"
    known = {*graph.stages.values()}
    for stage in (*transition.to, *((at,) if at is not None else ())):
        if stage not in known:
            yield f"{label}: stage {stage.name or '?'!r} is none of this saga"
    if first != transition.name:
        at_stage = f"at stage {at.name!r}" if at is not None else "where there is no saga"
        yield f"{first} and {transition.name} both take {event.__name__ if event else 'the limit'} {at_stage}"
    if at is None and transition.method is None:
        yield f"{label} begins the saga: decorate a static method that returns it"
    if at is not None and transition.method is None and not transition.to:
        yield f"{label} at stage {at.name!r} does nothing: give to=, or a method"
    if at is not None and at.end and transition.to:
        yield f"{label} leads out of stage {at.name!r}, which is an end"
    if at in _OWN and (transition.to or at is STUCK):
        yield f"{label}: while the saga compensates, a method at=Saga.compensating without to= may take it"
    if STUCK in transition.to or (COMPENSATING in transition.to and transition.method is None):
        yield f"{label} leads to {transition.to[0].name!r}: a method compensates, by step.compensate"


def _faults_of_versions(events: Iterable[type[Event]]) -> Iterator[str]:
    classes: dict[str, type[Event]] = {}
    for event in events:
        other = classes.setdefault(event.__event_type__, event)
        if other is not event:
            yield f"{other.__name__} and {event.__name__} are both {event.__event_type__!r}: take the newest"


def _faults_of_stage(stage: Stage, graph: Graph) -> Iterator[str]:
    here = [t for t in graph.transitions if t.at is stage]
    name, has_limit = stage.name, stage.limit is not None
    if stage.end and has_limit:
        yield f"stage {name!r} is an end and has a limit"
    elif has_limit and name not in graph.limits:
        yield f"stage {name!r} has a limit, and nothing says what then: declare late({name}, ...)"
    elif not has_limit and name in graph.limits:
        yield f"late({name}): the stage has no limit"
    if not stage.end and not any(t.method is not None or t.to not in ((), (stage,)) for t in here):
        yield f"no way leads out of stage {name!r}, which is no end: an event has to, or its limit"


def _faults_of_undo(graph: Graph) -> Iterator[str]:
    given: Iterable[tuple[Any, Any]] = graph.undo.items()
    for event, answer in given:
        for kind in (event, answer):
            if kind is not None and not (isinstance(kind, type) and issubclass(kind, Event)):
                yield f"undo=: {kind!r} is not an Event class"
