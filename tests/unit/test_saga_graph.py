"""What is wrong with the graph of a saga is said at import, a line for each fault."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest

from holdfast import ConfigurationError, Event, upcast
from holdfast.sagas import Saga, Stage, Step, begins, late, on

LIMIT = timedelta(hours=1)


class Opened(Event, type="case.opened", key="case"):
    case: str


class Closed(Event, type="case.closed", key="case"):
    case: str


class ClosedLater(Event, type="case.closed", version=2, key="case"):
    case: str


class Strange(Event, type="strange"):
    name: str


@contextmanager
def refused(*faults: str) -> Iterator[None]:
    """Whether a class is refused with these faults and no others."""
    with pytest.raises(ConfigurationError) as error:
        yield
    assert error.value.faults == tuple(f"saga Case: {fault}" for fault in faults)


def begun(to: Stage) -> Any:
    """A method that begins a saga."""

    def begin(event: Opened, step: Step) -> Any: ...

    return begins(Opened, to=to)(staticmethod(begin))


def nothing(self: Any, event: Any, step: Step) -> None: ...


def test_a_saga_that_nothing_begins() -> None:
    with refused("no event begins it: declare a static method with @begins"):

        class Case(Saga, key="case"):
            opened = Stage()
            closed = Stage(end=True)
            close = on(Closed, at=opened, to=closed)


def test_a_stage_that_nothing_leads_to_and_one_without_a_way_out() -> None:
    with refused(
        "no transition leads to stage 'forgotten'",
        "no way leads out of stage 'forgotten', which is no end: an event has to, or its limit",
    ):

        class Case(Saga, key="case"):
            opened = Stage()
            forgotten = Stage()
            closed = Stage(end=True)
            begin = begun(opened)
            close = on(Closed, at=opened, to=closed)


def test_a_limit_without_a_consequence_and_a_consequence_without_a_limit() -> None:
    with refused(
        "stage 'opened' has a limit, and nothing says what then: declare late(opened, ...)",
        "late(waiting): the stage has no limit",
    ):

        class Case(Saga, key="case"):
            opened = Stage(limit=LIMIT)
            waiting = Stage()
            closed = Stage(end=True)
            begin = begun(opened)
            wait = on(Opened, at=opened, to=waiting)
            close = on(Closed, at=waiting, to=closed)
            bored = late(waiting, to=closed)


def test_an_event_without_the_field_that_names_the_saga() -> None:
    with refused("Strange has no field 'case', which is the key of the saga"):

        class Case(Saga, key="case"):
            opened = Stage()
            closed = Stage(end=True)
            begin = begun(opened)
            close = on(Strange, at=opened, to=closed)


def test_an_answer_without_the_field_that_names_the_saga() -> None:
    with refused("Strange has no field 'case', which is the key of the saga"):

        class Case(Saga, key="case", undo={Closed: Strange}):
            opened = Stage()
            closed = Stage(end=True)
            begin = begun(opened)
            close = on(Closed, at=opened, to=closed)


def test_two_transitions_for_one_event_at_one_stage() -> None:
    with refused("close and close_again both take Closed at stage 'opened'"):

        class Case(Saga, key="case"):
            opened = Stage()
            closed = Stage(end=True)
            begin = begun(opened)
            close = on(Closed, at=opened, to=closed)
            close_again = on(Closed, at=opened)(nothing)


def test_two_versions_of_one_event() -> None:
    with refused("Closed and ClosedLater are both 'case.closed': take the newest"):

        class Case(Saga, key="case"):
            opened = Stage()
            waiting = Stage()
            closed = Stage(end=True)
            begin = begun(opened)
            close = on(Closed, at=opened, to=waiting)
            close_later = on(ClosedLater, at=waiting, to=closed)


def test_a_stage_of_another_saga() -> None:
    strange = Stage(end=True)
    strange.name = "strange"

    with refused("close: Closed: stage 'strange' is none of this saga"):

        class Case(Saga, key="case"):
            opened = Stage()
            begin = begun(opened)
            close = on(Closed, at=opened, to=strange)


def test_a_transition_that_does_nothing_and_one_that_cannot_begin() -> None:
    with refused(
        "begin: Opened begins the saga: decorate a static method that returns it",
        "close: Closed at stage 'opened' does nothing: give to=, or a method",
    ):

        class Case(Saga, key="case"):
            opened = Stage()
            closed = Stage(end=True)
            begin = begins(Opened, to=opened)
            close = on(Closed, at=opened)
            end = on(Opened, at=opened, to=closed)


def test_an_end_with_a_limit_and_a_way_out() -> None:
    with refused(
        "again: Opened leads out of stage 'closed', which is an end", "stage 'closed' is an end and has a limit"
    ):

        class Case(Saga, key="case"):
            opened = Stage()
            closed = Stage(end=True, limit=LIMIT)
            begin = begun(opened)
            close = on(Closed, at=opened, to=closed)
            again = on(Opened, at=closed, to=opened)


def test_a_way_into_compensation_past_its_method() -> None:
    with refused("close: Closed leads to 'compensating': a method compensates, by step.compensate"):

        class Case(Saga, key="case"):
            opened = Stage()
            begin = begun(opened)
            close = on(Closed, at=opened, to=Saga.compensating)


def test_a_way_out_of_compensation() -> None:
    with refused("again: Closed: while the saga compensates, a method at=Saga.compensating without to= may take it"):

        class Case(Saga, key="case"):
            opened = Stage()
            closed = Stage(end=True)
            begin = begun(opened)
            close = on(Closed, at=opened, to=closed)
            again = on(Closed, at=Saga.compensating, to=opened)


def test_a_stage_with_the_name_of_one_that_every_saga_has() -> None:
    with refused("stage 'stuck' has the name of a stage that every saga has"):

        class Case(Saga, key="case"):
            opened = Stage()
            stuck = Stage(end=True)  # type: ignore[misc]
            begin = begun(opened)
            close = on(Closed, at=opened, to=stuck)


def test_two_compensated_stages() -> None:
    with refused("two stages are compensated=True"):

        class Case(Saga, key="case"):
            opened = Stage()
            closed = Stage(compensated=True)
            cancelled = Stage(compensated=True)
            begin = begun(opened)
            close = on(Closed, at=opened, to=closed)
            cancel = on(Opened, at=opened, to=cancelled)


def test_an_undo_that_is_no_event() -> None:
    with refused("undo=: 'refund' is not an Event class"):

        class Case(Saga, key="case", undo={"refund": None}):  # type: ignore[dict-item]
            opened = Stage()
            begin = begun(opened)


def named(**arguments: Any) -> Callable[[], type[Saga]]:
    def make() -> type[Saga]:
        class Case(Saga, **arguments):
            opened = Stage()
            closed = Stage(end=True)
            begin = begun(opened)
            close = on(Closed, at=opened, to=closed)

        return Case

    return make


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ({}, "give key=, the field of its events that names the saga"),
        ({"key": "case", "name": "a case"}, "name='a case' is not 1 to 80 letters, digits, _-"),
        ({"key": "case", "version": 0}, "version=0 is not a whole number from 1"),
    ],
)
def test_a_wrong_argument_of_the_class(arguments: dict[str, Any], fault: str) -> None:
    with refused(fault):
        named(**arguments)()


def test_a_saga_has_the_name_of_its_class_or_the_one_given() -> None:
    class OrderFulfilment(named(key="case")()):  # type: ignore[misc]
        pass

    assert OrderFulfilment.__event_type__ == "order-fulfilment"
    assert named(key="case", name="court")().graph().saga == "court"


def test_a_class_without_stages_is_the_state_of_an_older_version() -> None:
    class CaseV1(Saga, name="case", version=1):
        number: int

    @upcast(CaseV1, Current)
    def name_it(old: CaseV1) -> Current:
        return Current(case=str(old.number))

    with pytest.raises(ConfigurationError, match="saga CaseV1 has no stages"):
        CaseV1.graph()
    assert CaseV1.__upcast__ is not None and CaseV1.__upcast__(CaseV1(number=4)) == Current(case="4")


class Current(Saga, key="case", name="case", version=2):
    case: str
    opened = Stage()
    closed = Stage(end=True)
    begin = begun(opened)
    close = on(Closed, at=opened, to=closed)
