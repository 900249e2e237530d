"""The diagram of a saga, in Mermaid's language, drawn from its declarations."""

from collections.abc import Iterator
from typing import TypeAlias

from .graph import Graph
from .stages import COMPENSATING, STUCK, Stage, Transition, in_words

Arrow: TypeAlias = tuple[str, str, str]
BEGIN_OR_END = "[*]"


def arrows_of(graph: Graph) -> list[Arrow]:
    """Return every arrow: from a stage, to a stage, and by which event."""
    arrows = [arrow for transition in graph.transitions for arrow in _of_transition(transition)]
    if graph.undo or any(target == COMPENSATING.name for _, target, _ in arrows):
        arrows += _of_compensation(graph)
    named = {name for source, target, _ in arrows for name in (source, target)}
    arrows += [(name, BEGIN_OR_END, "") for name, stage in graph.stages.items() if stage.end and name in named]
    return list(dict.fromkeys(arrows))


def diagram(graph: Graph, *, here: str | None = None) -> str:
    """Return a state diagram. The stage `here` is lit."""
    lines = [f"    {source} --> {target}{label and f': {label}'}" for source, target, label in arrows_of(graph)]
    if here in graph.stages:
        lines += ["    classDef here fill:#1f6f5c,color:#fff,font-weight:bold", f"    class {here} here"]
    return "\n".join(["stateDiagram-v2", *lines]) + "\n"


def _of_transition(transition: Transition) -> Iterator[Arrow]:
    source = BEGIN_OR_END if transition.at is None else transition.at.name
    if transition.event is not None:
        label = transition.event.__event_type__
    else:
        label = f"over {in_words((transition.at and transition.at.limit) or 0.0)}"
    for target in transition.to or _of_method(transition.at):
        yield source, target.name, label


def _of_method(at: Stage | None) -> tuple[Stage, ...]:
    """Return where a method without `to=` may lead: nowhere else, or to compensation."""
    if at is None:
        return ()
    return (at,) if at.end or at is COMPENSATING else (at, COMPENSATING)


def _of_compensation(graph: Graph) -> Iterator[Arrow]:
    answers = [answer.__event_type__ for answer in graph.undo.values() if answer is not None]
    yield from ((COMPENSATING.name, COMPENSATING.name, answer) for answer in answers)
    yield COMPENSATING.name, graph.compensated.name, "all is undone"
    if answers:
        yield COMPENSATING.name, STUCK.name, "no answer in time"
        yield STUCK.name, COMPENSATING.name, "the answer, nudge or skip-undo"
