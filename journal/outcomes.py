"""How each listener's queue ended with an event: pure, from the traces that were seen."""

from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from ..idempotency import ClaimState
from .recorded import Recorded

State: TypeAlias = Literal["handled", "dead-lettered", "waiting", "unknown"]
Pair: TypeAlias = tuple[str, str]
"""A queue and an event id."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a queue ended with an event, and by which trace that is known."""

    queue: str
    state: State
    by: str


@dataclass(frozen=True, slots=True)
class Traces:
    """The traces of events: the queues that listen to a type, rows of the inbox, claims, reasons of dead letters, and
    events that no relay has sent. `unread` names the traces that could not be looked at."""

    listeners: Callable[[str], Iterable[str]] = lambda event_type: ()
    inbox: Set[Pair] = frozenset()
    claims: Mapping[Pair, ClaimState] = field(default_factory=dict)
    letters: Mapping[Pair, str] = field(default_factory=dict)
    unsent: Set[str] = frozenset()
    unread: tuple[str, ...] = ()


def outcomes_of(events: Iterable[Recorded], traces: Traces) -> dict[str, tuple[Outcome, ...]]:
    """Return the outcome of each event, by its id, in each queue that listens to it or that has a trace of it."""
    known = list(events)
    effects = dict[Pair, str]()
    for event in known:
        metadata = event.metadata
        if metadata.caused_by and metadata.causation_id:
            effects.setdefault((metadata.caused_by, metadata.causation_id), metadata.event_type)
    traced = dict[str, list[str]]()
    for queue, event_id in (*effects, *traces.inbox, *traces.claims, *traces.letters):
        traced.setdefault(event_id, []).append(queue)
    return {
        event.event_id: tuple(
            _outcome(queue, event.event_id, effects, traces)
            for queue in sorted({*traces.listeners(event.metadata.event_type), *traced.get(event.event_id, ())})
        )
        for event in known
    }


def _outcome(queue: str, event_id: str, effects: Mapping[Pair, str], traces: Traces) -> Outcome:
    pair = (queue, event_id)
    claim = traces.claims.get(pair)
    if pair in traces.inbox:
        return Outcome(queue, "handled", "its row in the inbox")
    if claim == "done":
        return Outcome(queue, "handled", "its claim")
    if pair in traces.letters:
        return Outcome(queue, "dead-lettered", f"its dead letter: {traces.letters[pair]}")
    if claim is not None:
        return Outcome(queue, "waiting", "its claim: a worker has begun it, and has not completed it")
    if pair in effects:  # by itself: a handler whose second publish was refused has published the first
        return Outcome(queue, "handled", f"the event that it published: {effects[pair]}")
    if event_id in traces.unsent:
        return Outcome(queue, "waiting", "the outbox: no relay has sent it yet")
    return Outcome(queue, "unknown", "no trace of it")
