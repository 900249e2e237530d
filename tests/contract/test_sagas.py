"""What a step of a saga does, on each kind of database, driver and session: one suite for all."""

import asyncio
from decimal import Decimal
from typing import Any, ClassVar

import fulfilment as f
import pytest
from databases import Bank, banks, openers
from fulfilment import Fulfilment
from running import a_worker, publish_all, running
from waiting import Facts

from holdfast import ConfigurationError, Event, Settings, Worker, upcast
from holdfast.events import seal
from holdfast.sagas import Saga, Stage, Step, begins, on
from holdfast.sagas.sweeper import Sweeper
from holdfast.sagas.upkeep import Upkeep
from holdfast.telemetry import InboxAnswered, SagasCounted, SagaStepped, Settled

KNOWN = [each for each in openers() if each.values[0].server in ("", "postgres")]
POSTGRES = [each for each in KNOWN if each.values[0].server]

ORDER = "o-1"
CREATED = f.OrderCreated(order_id=ORDER, total=Decimal(9))
PAID = f.PaymentProcessed(order_id=ORDER, payment_id="p-1")
RESERVED, SHIPPED = f.StockReserved(order_id=ORDER), f.OrderShipped(order_id=ORDER)
FAILED = f.ShippingFailed(order_id=ORDER, reason="no van")
REFUNDED = f.PaymentRefunded(order_id=ORDER)


bank = banks(KNOWN)


@pytest.fixture
def settings(unique: str) -> Settings:
    """A broker in this process, no claim store, and a schema of this test's own."""
    return Settings(
        _env_file=None,  # type: ignore[call-arg]
        broker={"url": f"memory://{unique}", "exchange": unique},  # type: ignore[arg-type]
        sql={"schema": unique},  # type: ignore[arg-type]
    )


def orders(settings: Settings, facts: Facts, bank: Bank, saga: Any = Fulfilment, **options: Any) -> Worker:
    worker = a_worker(settings, facts)
    worker.include(saga, within=bank.database, **options)
    return worker


async def stepped(facts: Facts, stage: str, *, count: int = 1) -> list[SagaStepped]:
    return await facts.until(SagaStepped, lambda fact: fact.stage == stage, count=count)


async def steps_of(bank: Bank) -> list[tuple[Any, ...]]:
    table = bank.statements.table("saga_steps")
    return await bank.ask(f"select version, stage_before, stage, taken from {table} order by key, version")


async def test_state_history_and_events_of_each_step_are_committed_together(bank: Bank, settings: Settings) -> None:
    facts = Facts()

    async with running(orders(settings, facts, bank)):
        for event, stage in ((CREATED, "paying"), (PAID, "reserving"), (RESERVED, "shipping"), (SHIPPED, "shipped")):
            await publish_all(settings, [event])
            await stepped(facts, stage)

    assert await steps_of(bank) == [
        (1, None, "paying", "moved"),
        (2, "paying", "reserving", "moved"),
        (3, "reserving", "shipping", "moved"),
        (4, "shipping", "shipped", "moved"),
    ]
    assert [await bank.count(table) for table in ("sagas", "inbox")] == [1, 4]


async def test_compensation_survives_restarts_and_publishes_each_undo_once(bank: Bank, settings: Settings) -> None:
    facts = Facts()

    for event, stage in (
        *((CREATED, "paying"), (PAID, "reserving"), (RESERVED, "shipping"), (FAILED, "compensating")),
        (REFUNDED, "cancelled"),
    ):
        async with running(orders(settings, facts, bank)):
            await publish_all(settings, [event])
            await stepped(facts, stage)

    published = await bank.ask(f"select cast(published as text) from {bank.statements.table('saga_steps')}")
    text = " ".join(row[0] for row in published)
    assert [text.count(name) for name in ("refund.payment", "release.stock", "ship.order")] == [1, 1, 1]
    assert text.index("release.stock") < text.index("refund.payment")


async def test_twenty_four_events_for_one_saga_at_once_are_twenty_four_steps(bank: Bank, settings: Settings) -> None:
    facts = Facts()

    async with running(orders(settings, facts, bank, Counting, patience=60)):
        await publish_all(settings, [Counted(name="c", number=n) for n in range(24)])
        await facts.until(SagaStepped, lambda fact: fact.taken == "moved", count=24)

    assert len(facts.of(SagaStepped)) == 24
    assert {fact.attempt for fact in facts.of(Settled)} == {1}
    [(version, state)] = await bank.ask(f"select version, cast(state as text) from {bank.statements.table('sagas')}")
    assert version == 24
    assert '"total"' in state and str(sum(range(24))) in state


async def test_the_limit_of_a_stage_fires(bank: Bank, settings: Settings) -> None:
    facts = Facts()

    async with running(orders(settings, facts, bank)):
        await publish_all(settings, [CREATED])
        await stepped(facts, "paying")
        await bank.ask(f"update {bank.statements.table('sagas')} set due_at = began_at")
        [cancelled] = await stepped(facts, "cancelled")

    assert (cancelled.taken, cancelled.reason) == ("overdue", "paying: over its limit of 15 min")
    assert await bank.ask(f"select count(*) from {bank.statements.table('events')}") == [(0,)]


async def test_two_sweepers_send_one_limit_once(bank: Bank, settings: Settings) -> None:
    facts = Facts()
    async with running(orders(settings, facts, bank)):
        await publish_all(settings, [CREATED])
        await stepped(facts, "paying")
    await bank.ask(f"update {bank.statements.table('sagas')} set due_at = began_at")

    async def committed() -> None: ...

    sweepers = [a_sweeper(bank, settings, Fulfilment, committed) for _ in range(2)]
    await asyncio.gather(*(sweeper.fire() for sweeper in sweepers))

    types = await bank.ask(f"select event_type from {bank.statements.table('events')} where event_type like 'saga.%'")
    assert types == [("saga.fulfilment.overdue",)]


def a_sweeper(bank: Bank, settings: Settings, saga: type[Saga], committed: Any) -> Sweeper:
    from holdfast.broker import REAL

    return Sweeper(saga, "orders.fulfilment", bank.database, settings, REAL, lambda _: None, committed)


async def test_an_ended_saga_is_forgotten_after_its_time_and_its_key_begins_anew(
    bank: Bank, settings: Settings
) -> None:
    facts = Facts()
    store = Upkeep(bank.statements, "fulfilment")
    async with running(orders(settings, facts, bank)):
        await publish_all(settings, [CREATED, f.PaymentFailed(order_id=ORDER)])
        await stepped(facts, "cancelled")
        assert await bank.database.run(store.forget(3600.0)) == 0
        assert await bank.database.run(store.forget(0.0)) == 1
        assert [await bank.count(table) for table in ("sagas", "saga_steps")] == [0, 0]

        await publish_all(settings, [CREATED])
        await stepped(facts, "paying", count=2)

    assert await steps_of(bank) == [(1, None, "paying", "moved")]


async def test_the_figures_count_what_rests_by_stage(bank: Bank, settings: Settings) -> None:
    facts = Facts()

    async with running(orders(settings, facts, bank)):
        await publish_all(settings, [CREATED])
        await stepped(facts, "paying")
    async with running(orders(settings, facts, bank)):
        [counted, *_] = await facts.until(SagasCounted, lambda fact: any(stage[1] for stage in fact.stages))

    assert [(stage, count) for stage, count, _ in counted.stages] == [
        *(("compensating", 0), ("paying", 1), ("reserving", 0), ("shipping", 0), ("stuck", 0))
    ]


@pytest.mark.parametrize("bank", POSTGRES, indirect=True)
async def test_events_for_one_saga_each_run_once_and_not_again(bank: Bank, settings: Settings) -> None:
    facts = Facts()

    async with running(orders(settings, facts, bank, Counting, patience=60)):
        await publish_all(settings, [Counted(name="c", number=0)])
        await stepped(facts, "counting")
        Counting.runs.clear()
        await publish_all(settings, [Counted(name="c", number=n) for n in range(1, 25)])
        await stepped(facts, "counting", count=25)

    assert sorted(Counting.runs) == list(range(1, 25))


class Counted(Event, type="counted", key="name"):
    name: str
    number: int


class Counting(Saga, key="name"):
    runs: ClassVar[list[int]] = []

    name: str
    total: int = 0

    counting = Stage()
    counted = Stage(end=True)

    @begins(Counted, to=counting)
    @staticmethod
    def begin(event: Counted, step: Step) -> "Counting":
        return Counting(name=event.name, total=event.number)

    @on(Counted, at=counting, to=(counting, counted))
    def count(self, event: Counted, step: Step) -> None:
        self.total += event.number
        Counting.runs.append(event.number)
        step.goto(Counting.counting if event.number >= 0 else Counting.counted)


class CountingV1(Saga, name="moving", version=1):
    name: str
    number: int = 0


def before_the_deployment() -> type[Saga]:
    class MovingV1(Saga, key="name", name="moving"):
        name: str
        number: int = 0

        counting = Stage()
        packing = Stage()
        counted = Stage(end=True)

        @begins(Counted, to=counting)
        @staticmethod
        def begin(event: Counted, step: Step) -> "MovingV1":
            return MovingV1(name=event.name, number=event.number)

        pack = on(Counted, at=counting, to=packing)
        end = on(Counted, at=packing, to=counted)

    return MovingV1


class Moving(Saga, key="name", name="moving", version=2):
    name: str
    numbers: list[int]

    counting = Stage()
    counted = Stage(end=True)

    @begins(Counted, to=counting)
    @staticmethod
    def begin(event: Counted, step: Step) -> "Moving":
        return Moving(name=event.name, numbers=[event.number])

    @on(Counted, at=counting, to=counted)
    def end(self, event: Counted, step: Step) -> None:
        self.numbers.append(event.number)


@upcast(CountingV1, Moving)
def moved(old: CountingV1) -> Moving:
    return Moving(name=old.name, numbers=[old.number])


async def test_a_deployment_reads_the_state_of_the_one_before(bank: Bank, settings: Settings) -> None:
    facts = Facts()

    async with running(orders(settings, facts, bank, before_the_deployment())):
        await publish_all(settings, [Counted(name="c", number=1)])
        await stepped(facts, "counting")
    async with running(orders(settings, facts, bank, Moving)):
        await publish_all(settings, [Counted(name="c", number=2)])
        await stepped(facts, "counted")

    [(version, state)] = await bank.ask(
        f"select state_version, cast(state as text) from {bank.statements.table('sagas')}"
    )
    assert version == 2
    assert "[1,2]" in state.replace(" ", "")


async def test_a_deployment_without_a_stage_in_which_sagas_rest_does_not_start(bank: Bank, settings: Settings) -> None:
    facts = Facts()

    async with running(orders(settings, facts, bank, before_the_deployment())):
        await publish_all(settings, [Counted(name="c", number=1), Counted(name="c", number=2)])
        await stepped(facts, "packing")

    with pytest.raises(ConfigurationError) as refused:
        await orders(settings, facts, bank, Moving).run()
    [fault] = refused.value.faults
    assert fault.startswith("saga moving: 1 saga rests in stage 'packing', which is gone; keep it, or move them: ")
    assert fault.endswith("holdfast sagas move MODULE:WORKER moving --from packing --to STAGE --why TEXT")


@pytest.mark.parametrize("bank", POSTGRES, indirect=True)
async def test_a_saga_that_is_locked_elsewhere_waits_and_spends_no_attempt(
    bank: Bank, postgres_url: str, settings: Settings
) -> None:
    import asyncpg

    facts = Facts()
    connection = await asyncpg.connect(postgres_url)
    try:
        async with running(orders(settings, facts, bank)):
            created = seal(CREATED, source="shop")
            await publish_all(settings, [created])
            await stepped(facts, "paying")
            async with connection.transaction():
                await connection.execute(f"select 1 from {bank.statements.table('sagas')} for update")
                await publish_all(settings, [created])  # a repeat reads no saga, and so does not wait for one
                await facts.until(InboxAnswered, lambda fact: fact.result == "duplicate")
                await publish_all(settings, [PAID])
                await facts.until(Settled, lambda fact: fact.outcome == "postponed")
            await stepped(facts, "reserving")
    finally:
        await connection.close()

    assert {fact.attempt for fact in facts.of(Settled)} == {1}
    assert [fact.error for fact in facts.of(Settled)].count(None) == len(facts.of(Settled))
