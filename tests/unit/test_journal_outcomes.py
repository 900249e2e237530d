"""How listeners ended with an event, from the traces that were seen."""

from datetime import UTC, datetime

import pytest

from holdfast.events import Metadata
from holdfast.journal import Outcome, Recorded, Traces, outcomes_of

QUEUE = "billing.charge"


def an_event(event_id: str = "e-1", cause: str | None = None, by: str | None = None) -> Recorded:
    now = datetime.fromtimestamp(0, UTC)
    return Recorded(1, Metadata(event_id, "placed", now, 1, "shop", causation_id=cause, caused_by=by), b"{}")


def listening(event_type: str) -> list[str]:
    return [QUEUE] if event_type == "placed" else []


@pytest.mark.parametrize(
    ("traces", "state"),
    [
        (Traces(listening), "unknown"),
        (Traces(inbox={(QUEUE, "e-1")}), "handled"),
        (Traces(claims={(QUEUE, "e-1"): "done"}), "handled"),
        (Traces(claims={(QUEUE, "e-1"): "running"}), "waiting"),
        (Traces(claims={(QUEUE, "e-1"): "resting"}), "waiting"),
        (Traces(letters={(QUEUE, "e-1"): "exhausted"}), "dead-lettered"),
        (Traces(listening, unsent={"e-1"}), "waiting"),
        (Traces(inbox={(QUEUE, "e-1")}, letters={(QUEUE, "e-1"): "exhausted"}), "handled"),
        (Traces(claims={(QUEUE, "e-1"): "resting"}, letters={(QUEUE, "e-1"): "crashed"}), "dead-lettered"),
    ],
)
def test_an_outcome_is_what_its_traces_say(traces: Traces, state: str) -> None:
    [outcome] = outcomes_of([an_event()], traces)["e-1"]

    assert (outcome.queue, outcome.state) == (QUEUE, state)


def test_a_queue_that_published_an_effect_has_handled_its_cause() -> None:
    ended = outcomes_of([an_event(), an_event("e-2", "e-1", QUEUE)], Traces())

    assert ended == {"e-1": (Outcome(QUEUE, "handled", "the event that it published: placed"),), "e-2": ()}


@pytest.mark.parametrize(
    ("traces", "state"),
    [
        (Traces(letters={(QUEUE, "e-1"): "exhausted"}), "dead-lettered"),
        (Traces(claims={(QUEUE, "e-1"): "running"}), "waiting"),
    ],
)
def test_an_effect_of_a_handler_that_has_not_ended_well_is_no_proof(traces: Traces, state: str) -> None:
    """Its second publish was refused, or is still to come."""
    [outcome] = outcomes_of([an_event(), an_event("e-2", "e-1", QUEUE)], traces)["e-1"]

    assert outcome.state == state


def test_every_listener_of_a_type_has_an_outcome_of_its_own() -> None:
    traces = Traces(lambda _: ["b", "a"], inbox={("b", "e-1")}, letters={("c", "e-2"): "refused"})

    ended = outcomes_of([an_event(), an_event("e-2")], traces)

    states = {event_id: [(o.queue, o.state) for o in outcomes] for event_id, outcomes in ended.items()}
    assert states == {
        "e-1": [("a", "unknown"), ("b", "handled")],
        "e-2": [("a", "unknown"), ("b", "unknown"), ("c", "dead-lettered")],
    }
