"""Sagas in a harness: on SQLite in memory, in virtual time."""

import sqlite3
from collections.abc import Sequence
from decimal import Decimal
from itertools import permutations
from typing import Any

import fulfilment as f
import pytest
from fulfilment import Fulfilment

from holdfast import Event, Worker
from holdfast.sagas import Saga
from holdfast.sql import Database, ddl
from holdfast.testing import Harness

ORDER = "o-1"
CREATED = f.OrderCreated(order_id=ORDER, total=Decimal(9))
PAID = f.PaymentProcessed(order_id=ORDER, payment_id="p-1")
RESERVED, SHIPPED = f.StockReserved(order_id=ORDER), f.OrderShipped(order_id=ORDER)
FAILED = f.ShippingFailed(order_id=ORDER, reason="no van")
REFUND, REFUNDED = f.RefundPayment(order_id=ORDER, payment_id="p-1"), f.PaymentRefunded(order_id=ORDER)
MINUTE = 60.0


@pytest.fixture
async def database() -> Database[sqlite3.Connection]:
    memory = Database.sqlite(":memory:")
    for statement in ddl(dialect="sqlite"):
        await ask(memory, statement)
    return memory


@pytest.fixture
def orders(database: Database[sqlite3.Connection]) -> Worker:
    worker = Worker("orders")
    worker.include(Fulfilment, within=database)
    return worker


async def ask(database: Database[Any], statement: str) -> list[tuple[Any, ...]]:
    def steps() -> Any:
        return (yield statement, {})

    rows: list[tuple[Any, ...]] = await database.run(steps())
    return rows


async def publish(h: Harness, *events: Event) -> None:
    """Publish events, each once the one before has settled."""
    for event in events:
        await h.publish(event)
        await h.settle()


def published(h: Harness, kind: type[Event]) -> list[Event]:
    return [each.event for each in h.published if isinstance(each.event, kind)]


async def test_a_saga_goes_to_its_end_and_its_steps_are_written(
    orders: Worker, database: Database[sqlite3.Connection]
) -> None:
    async with Harness(orders) as h:
        await publish(h, CREATED, PAID, RESERVED, SHIPPED)

        saga = h.saga(Fulfilment, ORDER)
        assert (saga.stage, saga.state.payment_id) == (Fulfilment.shipped, "p-1")
        assert [type(each.event) for each in h.published] == [f.ChargeCustomer, f.ReserveStock, f.ShipOrder]

    steps = await ask(database, "select version, stage_before, stage, taken from holdfast_saga_steps order by version")
    assert steps == [
        (1, None, "paying", "moved"),
        (2, "paying", "reserving", "moved"),
        (3, "reserving", "shipping", "moved"),
        (4, "shipping", "shipped", "moved"),
    ]
    assert await ask(database, "select stage, undo, due_at, ended_at is null from holdfast_sagas") == [
        ("shipped", "[]", None, 0)
    ]


async def test_a_limit_fires_at_its_time_and_says_so(orders: Worker) -> None:
    async with Harness(orders) as h:
        await publish(h, CREATED)

        await h.advance(15 * MINUTE - 1)
        assert h.saga(Fulfilment, ORDER).stage is Fulfilment.paying

        await h.advance(1)
        saga = h.saga(Fulfilment, ORDER)
        assert (saga.stage, saga.steps[-1].taken) == (Fulfilment.cancelled, "overdue")
        assert saga.reason == "paying: over its limit of 15 min"


async def test_leaving_a_stage_cancels_its_limit(orders: Worker) -> None:
    async with Harness(orders) as h:
        await publish(h, CREATED)
        await h.advance(14 * MINUTE)
        await publish(h, PAID)

        await h.advance(59 * MINUTE)

        assert h.saga(Fulfilment, ORDER).stage is Fulfilment.reserving


async def test_a_limit_that_was_swept_before_its_stage_was_left_comes_late(
    orders: Worker, database: Database[sqlite3.Connection]
) -> None:
    async with Harness(orders) as h:
        await publish(h, CREATED)
        [(life,)] = await ask(database, "select life from holdfast_sagas")
        await publish(h, PAID)
        await publish(h, Fulfilment.__overdue__(key=ORDER, life=life, entered=1, stage="paying"))

        assert (h.saga(Fulfilment, ORDER).stage, h.saga(Fulfilment, ORDER).steps[-1].taken) == (
            Fulfilment.reserving,
            "late",
        )
        await publish(h, Fulfilment.__overdue__(key=ORDER, life="another", entered=2, stage="reserving"))
        assert (h.saga(Fulfilment, ORDER).stage, h.saga(Fulfilment, ORDER).steps[-1].taken) == (
            Fulfilment.reserving,
            "late",
        )


async def test_compensation_runs_backwards_to_its_end(orders: Worker) -> None:
    async with Harness(orders) as h:
        await publish(h, CREATED, PAID, RESERVED, FAILED)

        assert h.saga(Fulfilment, ORDER).stage is Saga.compensating
        assert published(h, f.ReleaseStock) + published(h, f.RefundPayment) == [f.ReleaseStock(order_id=ORDER), REFUND]

        await publish(h, REFUNDED)

        saga = h.saga(Fulfilment, ORDER)
        assert (saga.stage, saga.steps[-1].taken, saga.reason) == (
            Fulfilment.cancelled,
            "undone",
            "not shipped: no van",
        )


async def test_an_undo_that_nobody_answers_is_stuck_after_its_limit(orders: Worker) -> None:
    async with Harness(orders) as h:
        await publish(h, CREATED, PAID, RESERVED, FAILED)
        await h.advance(61 * MINUTE)

        assert h.saga(Fulfilment, ORDER).stage is Saga.stuck
        await publish(h, REFUNDED)

        assert h.saga(Fulfilment, ORDER).stage is Fulfilment.cancelled
        assert len(published(h, f.RefundPayment)) == 1


async def test_an_early_event_waits_without_an_attempt_and_then_moves(orders: Worker) -> None:
    async with Harness(orders) as h:
        await h.publish(PAID)
        await h.advance(5)
        await h.publish(CREATED)
        await h.settle()

        assert h.saga(Fulfilment, ORDER).stage is Fulfilment.reserving
        assert {fact.attempt for fact in h.settled} == {1}
        assert h.retries == []


async def test_an_event_that_stays_early_is_a_dead_letter(orders: Worker) -> None:
    async with Harness(orders) as h:
        await h.publish(PAID)
        await h.settle()

        [letter] = h.dead_letters
        assert (letter.reason, letter.attempt) == ("unexpected", 1)
        assert letter.error == "fulfilment: no saga has begun that takes payment.processed"
        assert sum(fact.delay or 0 for fact in h.settled) == pytest.approx(600, abs=3)


async def test_a_late_event_is_acked_and_written(orders: Worker, database: Database[sqlite3.Connection]) -> None:
    async with Harness(orders) as h:
        await publish(h, CREATED, PAID, RESERVED, SHIPPED)
        await publish(h, FAILED)

        assert h.dead_letters == []
        assert h.saga(Fulfilment, ORDER).stage is Fulfilment.shipped

    late = await ask(database, "select event_type, stage, version from holdfast_saga_steps where taken = 'late'")
    assert late == [("shipping.failed", "shipped", 4)]


async def test_payment_that_comes_after_the_cancellation_is_refunded(orders: Worker) -> None:
    async with Harness(orders) as h:
        await publish(h, CREATED)
        await h.advance(15 * MINUTE)
        await publish(h, PAID)

        assert published(h, f.RefundPayment) == [REFUND]
        assert h.saga(Fulfilment, ORDER).stage is Fulfilment.cancelled


async def test_crashes_and_duplicates_move_a_saga_once(orders: Worker, database: Database[sqlite3.Connection]) -> None:
    async with Harness(orders) as h:
        h.duplicate_every_message()
        for event in (CREATED, PAID, RESERVED, FAILED, REFUNDED):
            h.crash_before_ack()
            await publish(h, event)

        assert h.saga(Fulfilment, ORDER).stage is Fulfilment.cancelled

    assert await ask(database, "select version from holdfast_sagas") == [(5,)]
    assert await ask(database, "select count(*), count(distinct event_id) from holdfast_saga_steps") == [(5, 5)]


@pytest.mark.parametrize("first", range(5))
async def test_all_orders_of_five_events_end_alike(orders: Worker, first: int) -> None:
    """120 in all: a saga for each order in which they come."""
    story = [CREATED, PAID, RESERVED, FAILED, REFUNDED]
    orders_of_events = [order for order in permutations(range(5)) if order[0] == first]

    async with Harness(orders) as h:
        for number, order in enumerate(orders_of_events):
            for event in in_order(story, order, f"o-{number}"):
                await h.publish(event)
        await h.settle()

        ends = [h.saga(Fulfilment, f"o-{number}") for number in range(len(orders_of_events))]
        assert {(end.stage.name, end.reason, end.undo) for end in ends} == {("cancelled", "not shipped: no van", ())}
        for kind in (f.ChargeCustomer, f.ReserveStock, f.ShipOrder, f.ReleaseStock, f.RefundPayment):
            assert len(published(h, kind)) == len(orders_of_events)
        assert h.dead_letters == []


def in_order(story: Sequence[Event], order: Sequence[int], key: str) -> list[Event]:
    return [story[at].model_copy(update={"order_id": key}) for at in order]
