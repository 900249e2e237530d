"""The state machine of a saga, without a database: pure values in and out."""

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import fulfilment as f
import pytest
from fulfilment import Fulfilment
from hypothesis import given
from hypothesis import strategies as st

from holdfast import Event
from holdfast.sagas import Moved, Saga, SagaError, Stage, Step, TooEarly, begins, on

ORDER = "o-1"
CREATED = f.OrderCreated(order_id=ORDER, total=Decimal(9))
PAID = f.PaymentProcessed(order_id=ORDER, payment_id="p-1")
RESERVED, SHIPPED = f.StockReserved(order_id=ORDER), f.OrderShipped(order_id=ORDER)
FAILED = f.ShippingFailed(order_id=ORDER, reason="no van")
REFUND, REFUNDED = f.RefundPayment(order_id=ORDER, payment_id="p-1"), f.PaymentRefunded(order_id=ORDER)
UNPAID = f.PaymentFailed(order_id=ORDER)
RELEASE = f.ReleaseStock(order_id=ORDER)


def after(*events: Event) -> Moved[Fulfilment]:
    """The saga after these events."""
    return [*through(events)][-1]


def through(events: Iterable[Event], before: Moved[Fulfilment] | None = None) -> Iterable[Moved[Fulfilment]]:
    for event in events:
        yield (before := Fulfilment.take(before, event))


def test_an_event_begins_a_saga_and_publishes() -> None:
    begun = Fulfilment.take(None, CREATED)

    assert begun.stage is Fulfilment.paying
    assert begun.published == (f.ChargeCustomer(order_id=ORDER, total=Decimal(9)),)
    assert begun.due == 15 * 60


def test_a_transition_changes_the_state_and_leaves_the_one_before_alone() -> None:
    begun = after(CREATED)

    paid = Fulfilment.take(begun, PAID)

    assert (paid.stage, paid.state.payment_id) == (Fulfilment.reserving, "p-1")
    assert begun.state.payment_id is None


def test_a_transition_without_a_method_moves() -> None:
    assert after(CREATED, UNPAID).stage is Fulfilment.cancelled


def test_an_end_forgets_what_would_undo_it_and_its_limit() -> None:
    shipped = after(CREATED, PAID, RESERVED, SHIPPED)

    assert (shipped.stage, shipped.undo, shipped.due) == (Fulfilment.shipped, (), None)


def test_an_event_before_the_first_is_early() -> None:
    with pytest.raises(TooEarly, match="no saga has begun"):
        Fulfilment.take(None, PAID)


def test_an_event_of_a_later_stage_is_early() -> None:
    with pytest.raises(TooEarly, match="stage 'paying' does not take"):
        Fulfilment.take(after(CREATED), SHIPPED)


def test_an_event_of_a_stage_behind_is_late_and_changes_nothing() -> None:
    before = after(CREATED, PAID)

    late_one = Fulfilment.take(before, CREATED)

    assert (late_one.taken, late_one.published, late_one.has_entered) == ("late", (), False)
    assert (late_one.state, late_one.stage, late_one.undo) == (before.state, before.stage, before.undo)


def test_an_ended_saga_takes_what_it_declares_and_all_else_is_late() -> None:
    cancelled = after(CREATED, UNPAID)

    refunding = Fulfilment.take(cancelled, PAID)

    assert (refunding.taken, refunding.stage, refunding.published) == ("moved", Fulfilment.cancelled, (REFUND,))
    assert Fulfilment.take(cancelled, SHIPPED).taken == "late"


def test_compensation_runs_backwards_and_awaits_each_answer() -> None:
    failed = after(CREATED, PAID, RESERVED, FAILED)

    assert failed.stage is Saga.compensating
    assert failed.published == (RELEASE, REFUND)
    assert failed.awaited is not None and failed.awaited.event == REFUND
    assert (failed.reason, failed.due) == ("not shipped: no van", 3600)

    undone = Fulfilment.take(failed, REFUNDED)

    assert (undone.stage, undone.taken, undone.published) == (Fulfilment.cancelled, "undone", ())


def test_a_saga_that_did_nothing_compensates_at_once() -> None:
    assert Fulfilment.overrun(after(CREATED)).stage is Fulfilment.cancelled


def test_a_limit_says_which_it_was() -> None:
    assert Fulfilment.overrun(after(CREATED)).reason == "paying: over its limit of 15 min"


def test_a_way_to_the_compensated_stage_undoes_what_was_done() -> None:
    never_reserved = Fulfilment.overrun(after(CREATED, PAID))

    assert (never_reserved.stage, never_reserved.published) == (Saga.compensating, (REFUND,))


def test_an_undo_without_its_answer_is_stuck_and_the_answer_frees_it() -> None:
    stuck = Fulfilment.overrun(after(CREATED, PAID, RESERVED, FAILED))

    assert (stuck.stage, stuck.published, stuck.due) == (Saga.stuck, (), None)
    assert Fulfilment.take(stuck, REFUNDED).stage is Fulfilment.cancelled


def test_an_answer_before_its_undo_is_early() -> None:
    with pytest.raises(TooEarly):
        Fulfilment.take(after(CREATED, PAID), REFUNDED)


def test_an_answer_that_nobody_awaits_is_late() -> None:
    cancelled = after(CREATED, PAID, RESERVED, FAILED, REFUNDED)

    assert Fulfilment.take(cancelled, REFUNDED).taken == "late"


class Begun(Event, type="trip.begun", key="trip"):
    trip: str


class Booked(Event, type="trip.booked", key="trip"):
    trip: str


class Cancel(Event, type="trip.cancel", key="trip"):
    trip: str


class Cancelled(Event, type="trip.cancelled", key="trip"):
    trip: str


class Trip(Saga, key="trip", undo={Cancel: Cancelled}):
    trip: str
    booked: int = 0

    booking = Stage()
    done = Stage(end=True)

    @begins(Begun, to=(booking, done))
    @staticmethod
    def begin(event: Begun, step: Step) -> "Trip":
        if event.trip == "short":
            step.goto(Trip.done)
        elif event.trip == "long":
            step.goto(Trip.booking)
        elif event.trip == "lost":
            step.goto(Trip.compensating)
        elif event.trip == "refused":
            step.compensate("not this one")
        return Trip(trip=event.trip)

    @on(Booked, at=booking)
    def book(self, event: Booked, step: Step) -> None:
        self.booked += 1
        step.undo_by(Cancel(trip=str(self.booked)))
        if self.booked == 3:
            step.compensate("three are too many")

    @on(Booked, at=Saga.compensating)
    def book_after_all(self, event: Booked, step: Step) -> None:
        step.undo_by(Cancel(trip="late"))

    @on(Begun, at=booking, to=done)
    def refuse(self, event: Begun, step: Step) -> None:
        step.undo_by(Booked(trip="1"))


def trip_after(*events: Event) -> Moved[Trip]:
    before: Moved[Trip] | None = None
    for event in events:
        before = Trip.take(before, event)
    assert before is not None
    return before


def cancelled_by(trip: Moved[Trip]) -> list[str]:
    """What a trip cancels until it is at its end, in order."""
    cancelled = [event.trip for event in trip.published if isinstance(event, Cancel)]
    while trip.stage is Saga.compensating:
        trip = Trip.take(trip, Cancelled(trip="1"))
        cancelled += [event.trip for event in trip.published if isinstance(event, Cancel)]
    assert trip.stage.name == "compensated"
    return cancelled


LONG, BOOKED = Begun(trip="long"), Booked(trip="long")


def test_a_method_chooses_where_to_go() -> None:
    assert Trip.take(None, Begun(trip="short")).stage is Trip.done
    assert Trip.take(None, LONG).stage is Trip.booking


def test_a_method_that_goes_where_it_must_not_is_an_error() -> None:
    with pytest.raises(SagaError, match="went to 'compensating', which its to= does not name"):
        Trip.take(None, Begun(trip="lost"))
    with pytest.raises(SagaError, match="chose none of booking, done"):
        Trip.take(None, Begun(trip="undecided"))


def test_a_method_that_compensates_past_its_declaration_is_an_error() -> None:
    with pytest.raises(SagaError, match="begin compensates: leave its to= out"):
        Trip.take(None, Begun(trip="refused"))


def test_an_undo_that_the_class_does_not_declare_is_an_error() -> None:
    with pytest.raises(SagaError, match=r"undo_by\(Booked\): the class has no undo="):
        Trip.take(trip_after(LONG), LONG)


def test_without_a_compensated_stage_there_is_one() -> None:
    assert cancelled_by(trip_after(LONG, BOOKED, BOOKED, BOOKED)) == ["3", "2", "1"]


def test_what_is_done_while_it_compensates_is_undone_next() -> None:
    compensating = trip_after(LONG, BOOKED, BOOKED, BOOKED, BOOKED)

    assert compensating.published == ()
    assert ["3", *cancelled_by(compensating)] == ["3", "late", "2", "1"]


EVENTS = st.sampled_from([CREATED, PAID, UNPAID, RESERVED, SHIPPED, FAILED, REFUNDED, None])


@given(st.lists(EVENTS, max_size=30))
def test_early_late_and_taken_divide_all_events(events: list[Event | None]) -> None:
    """A saga ends, waits or compensates; charges are refunded or shipped, and no event does two things at once."""
    saga: Moved[Any] | None = None
    refunds = charges = 0
    for event in events:
        before = saga
        try:
            if event is not None:
                saga = Fulfilment.take(saga, event)
            elif saga is not None and saga.due is not None:
                saga = Fulfilment.overrun(saga)
        except TooEarly:
            assert before is None or not before.stage.end
            continue
        if saga is None or saga is before:
            continue
        assert (saga.taken == "late") == (
            before is not None
            and saga.stage is before.stage
            and not saga.has_entered
            and saga.published == ()
            and saga.undo == before.undo
        )
        charges += event is PAID and saga.taken != "late"
        refunds += sum(isinstance(sent, f.RefundPayment) for sent in saga.published)
        assert not (saga.stage.end and saga.undo)
        assert (saga.awaited is not None) == (saga.stage in (Saga.compensating, Saga.stuck))
    if saga is not None and saga.stage is Fulfilment.cancelled:
        assert refunds == charges
    if saga is not None and saga.stage is Fulfilment.shipped:
        assert (charges, refunds) == (1, 0)
