"""Read models that are made from the journal, on each kind of database."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from typing import Any, cast

import pytest
from databases import Bank, banks, keeping, kinds
from running import a_worker, running
from sqlalchemy.ext.asyncio import create_async_engine
from waiting import LIMIT, Facts

from holdfast import ConfigurationError, Event, Settings
from holdfast.broker import REAL, Broker
from holdfast.journal import Journal, Projection, Recorded
from holdfast.journal.projector import Projector, _Call
from holdfast.outbox import Relay
from holdfast.sql import Database, Outbox, Steps
from holdfast.sql.openers import AlchemyAsync
from holdfast.telemetry import Projected, ProjectionStalled, Spans
from holdfast.testing.clock import VirtualClock

BARE = ("sqlite", "asyncpg", "psycopg-async", "psycopg")
"""The kinds whose connections say whether they are in a transaction."""
ONE_OF_EACH = [each for each in keeping() if each.id in ("sqlite", "asyncpg-session", "psycopg-session")]

ASYNC = [each for each in keeping() if each.id == "asyncpg-session"]


class Paid(Event, type="paid", key="account"):
    account: str
    cents: int


class Refunded(Event, type="refunded", key="account"):
    account: str
    cents: int


class Noise(Event, type="noise"):
    number: int = 0


bank = banks(keeping(), keeps=True)


@pytest.fixture
def settings(unique: str) -> Settings:
    broker: Any = {"url": f"memory://{unique}", "exchange": unique}
    sql: Any = {"schema": unique, "keep": "forever", "poll": 0.05}
    return Settings(_env_file=None, broker=broker, sql=sql)  # type: ignore[call-arg]


class Sink:
    """A broker that confirms all."""

    header_budget = 100_000

    async def publish(self, *arguments: Any, **options: Any) -> None: ...

    async def declare(self, *arguments: Any) -> None: ...


async def publish(bank: Bank, settings: Settings, *events: Event) -> list[str]:
    """Commit events, and have positions given to them. Returns their ids."""
    outbox = Outbox(settings)
    async with bank.transaction() as within:
        ids = [(await bank.publish(outbox, within, event)).event_id for event in events]
    broker, emit = cast("Broker", Sink()), Facts().record
    relay = Relay(bank.database, broker, settings, emit=emit, spans=Spans(), clock=REAL, luck=lambda: 0.0)
    await relay.drain()
    await relay.leases.leave()
    return ids


def payments(account: str, *amounts: int) -> list[Event]:
    return [
        Paid(account=account, cents=cents) if cents > 0 else Refunded(account=account, cents=-cents)
        for cents in amounts
    ]


class Balances:
    """A projection that writes a row for each event, before what a test has it do then."""

    def __init__(self, bank: Bank, then: Callable[[Any, Any], Any] = lambda event, session: None, **given: Any) -> None:
        self.bank, self.then, self.seen = bank, then, list[Recorded]()
        self.projection = Projection("balances", **given)
        execute = bank.kind.execute

        def statement(event: Any) -> str:
            cents = event.cents if isinstance(event, Paid) else -event.cents
            return f"insert into {bank.accounts} values ('{event.account}', {cents})"

        async def on_loop(event: Any, at: Recorded, session: Any) -> None:
            self.seen.append(at)
            await execute(session, statement(event))
            awaitable = self.then(event, session)
            if awaitable is not None:
                await awaitable

        def in_thread(event: Any, at: Recorded, session: Any) -> None:
            self.seen.append(at)
            execute(session, statement(event))
            self.then(event, session)

        async def clear_on_loop(session: Any) -> None:
            await execute(session, f"delete from {bank.accounts}")

        def clear_in_thread(session: Any) -> None:
            execute(session, f"delete from {bank.accounts}")

        is_async = bank.database.is_async
        self.projection.on(Paid, Refunded)(on_loop if is_async else in_thread)
        self.projection.begins(clear_on_loop if is_async else clear_in_thread)

    def projector(self, settings: Settings, facts: Facts | None = None) -> Projector:
        return Projector(self.projection, self.bank.database, settings, (facts or Facts()).record, REAL)

    async def rows(self) -> list[tuple[Any, ...]]:
        return await self.bank.ask(f"select account, sum(cents) from {self.bank.accounts} group by account order by 1")

    async def position(self) -> int:
        cursors = self.bank.statements.table("cursors")
        rows = await self.bank.ask(f"select position from {cursors} where name = '{self.projection.cursor}'")
        return int(rows[0][0])


async def test_a_projection_is_the_fold_of_its_events(bank: Bank, settings: Settings) -> None:
    balances = Balances(bank)
    await publish(bank, settings, *payments("a", 10, 20, -5), Noise(), *payments("b", 7))
    projector = balances.projector(settings)

    await projector.drain()
    await publish(bank, settings, *payments("b", 1), Noise())
    await projector.drain()

    assert [(account, int(total)) for account, total in await balances.rows()] == [("a", 25), ("b", 8)]
    assert [at.position for at in balances.seen] == [1, 2, 3, 5, 6]
    assert await balances.position() == 7
    assert (balances.seen[0].metadata.event_type, balances.seen[0].metadata.key) == ("paid", "a")


async def test_rows_and_position_are_rolled_back_together(bank: Bank, settings: Settings) -> None:
    failures = [1]

    def fail_once(event: Any, session: Any) -> None:
        if event.cents == 20 and failures:
            failures.pop()
            raise ZeroDivisionError

    balances = Balances(bank, fail_once)
    await publish(bank, settings, *payments("a", 10, 20, -5))

    await balances.projector(settings).drain()

    assert [(account, int(total)) for account, total in await balances.rows()] == [("a", 25)]
    assert await bank.count("accounts") == 3
    assert [at.position for at in balances.seen] == [1, 2, 1, 2, 3]


async def test_an_event_that_fails_stops_the_projection_and_is_not_skipped(bank: Bank, settings: Settings) -> None:
    facts, is_broken = Facts(), [True]

    def fail(event: Any, session: Any) -> None:
        if event.cents == 20 and is_broken:
            raise ZeroDivisionError("by twenty")

    balances = Balances(bank, fail)
    await publish(bank, settings, *payments("a", 10, 11, 12, 20, 13))
    projector = balances.projector(settings, facts)

    await projector.drain()
    while_broken = await balances.position(), await bank.count("accounts"), projector.missing()
    is_broken.clear()
    await projector.drain()

    assert while_broken == (3, 3, "projection balances v1: ZeroDivisionError: by twenty")
    [stalled] = facts.of(ProjectionStalled)
    assert (stalled.projection, stalled.position) == ("balances v1", 4)
    assert any(fact.position == 3 and fact.lag > 0 for fact in facts.of(Projected))
    assert (await balances.position(), await bank.count("accounts")) == (5, 5)


@pytest.mark.parametrize("bank", ONE_OF_EACH, indirect=True)
async def test_times_beyond_the_calendar_that_were_recorded_are_read_as_its_ends(
    bank: Bank, settings: Settings
) -> None:
    balances, events = Balances(bank), bank.statements.table("events")
    ids = await publish(bank, settings, *payments("a", 10, 20, -5))
    for event_id, seconds in zip(ids, (-62135600400.0, 253402300800.0), strict=False):
        time = f"to_timestamp({seconds})" if bank.kind.is_postgres else str(seconds)
        await bank.ask(f"update {events} set time = {time} where event_id = '{event_id}' returning 1")

    await balances.projector(settings).drain()

    assert [(account, int(total)) for account, total in await balances.rows()] == [("a", 25)]
    assert [at.metadata.time.year for at in balances.seen[:2]] == [1, 9999]


@pytest.mark.parametrize("bank", ONE_OF_EACH[:1], indirect=True)
async def test_a_row_that_cannot_be_read_stops_the_projection_and_is_named(bank: Bank, settings: Settings) -> None:
    facts, balances = Facts(), Balances(bank)
    ids = await publish(bank, settings, *payments("a", 10, 20, -5))
    events = bank.statements.table("events")
    await bank.ask(f"update {events} set headers = 'torn' where event_id = '{ids[1]}' returning 1")

    await balances.projector(settings, facts).drain()

    [stalled] = facts.of(ProjectionStalled)
    assert (stalled.position, stalled.event_id, await balances.position()) == (2, ids[1], 1)


@pytest.mark.parametrize("bank", ASYNC, indirect=True)
async def test_a_group_of_tasks_that_fails_in_a_projection_is_a_failure_like_others(
    bank: Bank, settings: Settings
) -> None:
    failures = [1, 2]

    async def fail_twice(event: Any, session: Any) -> None:
        async def fail() -> None:
            raise ZeroDivisionError

        if event.cents == 20 and failures:
            failures.pop()
            async with asyncio.TaskGroup() as group:  # which leaves a cancellation, up to Python 3.12
                group.create_task(fail())

    balances = Balances(bank, fail_twice)
    await publish(bank, settings, *payments("a", 10, 20, -5))
    facts = Facts()
    running = asyncio.create_task(balances.projector(settings, facts).run())
    await facts.until(Projected, lambda fact: fact.position == 3)
    running.cancel()
    await asyncio.wait({running})

    assert await bank.count("accounts") == 3


async def test_a_projection_cannot_publish(bank: Bank, settings: Settings) -> None:
    facts, outbox = Facts(), Outbox(settings)

    def publish_too(event: Any, session: Any) -> Any:
        return outbox.publish(session, Noise())

    balances = Balances(bank, publish_too)
    await publish(bank, settings, *payments("a", 10))

    await balances.projector(settings, facts).drain()

    [stalled] = facts.of(ProjectionStalled)
    assert stalled.error.startswith("PublishError: a projection publishes nothing")
    assert await bank.count("events") == 1


@pytest.mark.parametrize("bank", ONE_OF_EACH, indirect=True)
async def test_a_version_is_made_from_the_first_event_on_beside_the_other(bank: Bank, settings: Settings) -> None:
    first, second = Balances(bank), Balances(bank, version=2)
    await publish(bank, settings, *payments("a", 10, 20))
    await first.projector(settings).drain()

    await second.projector(settings).drain()
    await publish(bank, settings, *payments("a", 5))
    await first.projector(settings).drain()

    assert [at.position for at in second.seen] == [1, 2]
    assert (await first.position(), await second.position()) == (3, 2)


@pytest.mark.parametrize("bank", ONE_OF_EACH, indirect=True)
async def test_a_projection_that_is_made_anew_begins_with_nothing(bank: Bank, settings: Settings) -> None:
    balances, cursors = Balances(bank), bank.statements.table("cursors")
    await publish(bank, settings, *payments("a", 10, 20))
    await balances.projector(settings).drain()
    await bank.ask(f"update {cursors} set position = -1 where name = '{balances.projection.cursor}'")

    await balances.projector(settings).drain()

    assert [(account, int(total)) for account, total in await balances.rows()] == [("a", 30)]
    assert [at.position for at in balances.seen] == [1, 2, 1, 2]


@pytest.mark.parametrize("bank", ONE_OF_EACH, indirect=True)
async def test_more_events_than_fit_in_a_batch_are_all_handled_once(bank: Bank, settings: Settings) -> None:
    balances = Balances(bank)
    await publish(bank, settings, *payments("a", *[1] * 1100))
    await publish(bank, settings, *[Noise(number=n) for n in range(700)])

    await asyncio.gather(*(balances.projector(settings).drain() for _ in range(3)))
    await balances.projector(settings).drain()

    assert await bank.count("accounts") == 1100
    assert await balances.position() == 1800


@pytest.mark.parametrize("bank", [each for each in ONE_OF_EACH if each.id != "sqlite"], indirect=True)
async def test_a_backend_that_dies_repeats_nothing(bank: Bank, settings: Settings) -> None:
    kills = [10, 20, 30]

    def kill(event: Any, session: Any) -> Any:
        if event.cents in kills:
            kills.remove(event.cents)
            return bank.kind.execute(session, "select pg_terminate_backend(pg_backend_pid())")
        return None

    balances = Balances(bank, kill)
    await publish(bank, settings, *payments("a", 10, 15, 20, 25, 30))
    projector = balances.projector(settings)

    for _ in range(8):
        await projector.drain()

    assert [(account, int(total)) for account, total in await balances.rows()] == [("a", 100)]
    assert await bank.count("accounts") == 5 and not kills


class Overtaken(Projector):
    """A projection that another process would handle between its reading and its first write."""

    other: Projector

    def _calls(self, batch: Any, session: Any) -> Any:
        yield _Call(0, None, self.other.drain)
        yield from super()._calls(batch, session)


@pytest.mark.parametrize("bank", [each for each in kinds() if each.id == "sqlite-async-session"], indirect=True)
async def test_two_processes_do_not_handle_one_batch_on_sqlite(bank: Bank, settings: Settings) -> None:
    balances, facts = Balances(bank), Facts()
    await publish(bank, settings, *payments("a", 1))
    await balances.projector(settings).drain()
    await publish(bank, settings, *payments("a", 2, 3))
    engine = create_async_engine(cast("AlchemyAsync", bank.database.opener).engine.url, connect_args={"timeout": 0.01})
    projector = Overtaken(balances.projection, bank.database, settings, facts.record, REAL)
    projector.other = Projector(balances.projection, Database(engine), settings, facts.record, REAL)

    await projector.drain()
    await engine.dispose()

    assert [(account, int(total)) for account, total in await balances.rows()] == [("a", 6)]
    assert (await balances.position(), len(facts.of(ProjectionStalled))) == (3, 1)


class KilledAt(Projector):
    """A projection whose backend is killed once at each arrow of a batch: its row is locked, the events are read, they
    are handled, the position is moved, and all is committed."""

    left: list[str]

    def _read(self) -> Any:
        yield from self._kill("begun")
        batch = yield from super()._read()
        if batch is not None:
            yield from self._kill("read")
        return batch

    def _move(self, batch: Any) -> Any:
        yield from self._kill("handled")
        yield from super()._move(batch)
        yield from self._kill("moved")

    async def _turn(self) -> bool:
        is_more = await super()._turn()
        if "committed" in self.left:
            self.left.remove("committed")
            raise ConnectionError("killed after the commit")
        return is_more

    def _kill(self, arrow: str) -> Any:
        if arrow in self.left:
            self.left.remove(arrow)
            yield "select pg_terminate_backend(pg_backend_pid())", {}


@pytest.mark.parametrize("bank", [each for each in ONE_OF_EACH if each.id != "sqlite"], indirect=True)
async def test_a_projection_that_is_killed_at_each_arrow_is_the_fold_of_its_history(
    bank: Bank, settings: Settings
) -> None:
    arrows = ["begun", "read", "handled", "moved", "committed"]
    balances, luck = Balances(bank), random.Random(7)
    fold = Counter[str]()
    for arrow in (*arrows, "none"):
        amounts = [luck.choice([-5, 1, 20]) for _ in range(120)]
        for account in "ab":
            await publish(bank, settings, *payments(account, *amounts), Noise())
            fold[account] += sum(amounts)
        projector = KilledAt(balances.projection, bank.database, settings, Facts().record, REAL)
        projector.left = [] if arrow == "none" else [arrow]
        for _ in range(5):
            await projector.drain()
        assert not projector.left, arrow

    assert {account: int(total) for account, total in await balances.rows()} == dict(fold)
    assert await bank.count("accounts") == 6 * 240
    assert await balances.position() == 6 * 242


@pytest.mark.parametrize("bank", ONE_OF_EACH, indirect=True)
async def test_events_that_were_deleted_before_they_were_read_are_named(bank: Bank, settings: Settings) -> None:
    facts, balances = Facts(), Balances(bank)
    positions = bank.statements.table("positions")
    await publish(bank, settings, *payments("a", 1))
    projector = balances.projector(settings, facts)
    await projector.drain()
    await publish(bank, settings, *payments("a", 2, 3, 4))
    await bank.ask(f"delete from {positions} where position < 4")

    await projector.drain()

    [stalled] = facts.of(ProjectionStalled)
    assert stalled.error == (
        "HoldfastError: the events from position 2 to 3 were deleted before it read them; make it of those that are "
        "left: holdfast journal rebuild balances --version 1"
    )


@pytest.mark.parametrize("bank", ONE_OF_EACH, indirect=True)
async def test_events_that_were_deleted_behind_one_that_is_held_are_named_too(bank: Bank, settings: Settings) -> None:
    facts, balances, kept = Facts(), Balances(bank), bank.database.kept(settings.sql.schema)
    await publish(bank, settings, *payments("a", 1, 2, 3, 4))
    projector = balances.projector(settings, facts)
    await bank.ask(f"delete from {bank.statements.table('positions')} where position in (2, 3)")

    def note(position: int) -> Steps[None]:
        yield kept.forgot, {"position": str(position)}

    await bank.database.run(note(3))
    begun = f"(name, position) values ('{balances.projection.cursor}', 1)"
    await bank.ask(f"insert into {bank.statements.table('cursors')} {begun}")

    await projector.drain()

    [stalled] = facts.of(ProjectionStalled)
    assert "the events from position 2 to 3 were deleted" in stalled.error


@pytest.mark.parametrize("bank", ONE_OF_EACH, indirect=True)
async def test_a_projection_goes_on_past_what_was_deleted_before_it_began(bank: Bank, settings: Settings) -> None:
    facts, kept = Facts(), bank.database.kept(settings.sql.schema)
    fails = [2]

    def fail_once(event: Any, session: Any) -> None:
        if event.cents in fails:
            fails.remove(event.cents)
            raise ZeroDivisionError

    balances = Balances(bank, fail_once)
    await publish(bank, settings, *payments("a", 1, 2, 4, 8))
    await bank.ask(f"delete from {bank.statements.table('positions')} where position = 3")

    def forget() -> Steps[None]:
        yield kept.forgot, {"position": "3"}

    await bank.database.run(forget())
    projector = balances.projector(settings, facts)

    await projector.drain()
    await projector.drain()

    assert [(account, int(total)) for account, total in await balances.rows()] == [("a", 11)]
    assert not [fact for fact in facts.of(ProjectionStalled) if "deleted" in fact.error]


@pytest.mark.parametrize("bank", ONE_OF_EACH, indirect=True)
@pytest.mark.parametrize("failure", [TimeoutError, ConnectionError, ZeroDivisionError])
async def test_the_events_before_one_whose_function_raises_are_committed(
    bank: Bank, settings: Settings, failure: type[Exception]
) -> None:
    def fail(event: Any, session: Any) -> None:
        if event.cents == 4:
            raise failure

    facts, balances = Facts(), Balances(bank, fail)
    await publish(bank, settings, *payments("a", 1, 2, 3, 4, 5))

    await balances.projector(settings, facts).drain()

    assert [(account, int(total)) for account, total in await balances.rows()] == [("a", 6)]
    assert (await balances.position(), facts.of(ProjectionStalled)[0].position) == (3, 4)


@pytest.mark.parametrize("bank", [each for each in keeping() if each.id in BARE], indirect=True)
async def test_a_function_that_rolls_back_loses_no_event_of_its_projection(bank: Bank, settings: Settings) -> None:
    def roll_back(event: Any, session: Any) -> Any:
        return bank.kind.execute(session, "rollback") if event.cents == 4 else None

    facts, balances = Facts(), Balances(bank, roll_back)
    await publish(bank, settings, *payments("a", 1, 2, 3, 4, 5))

    await balances.projector(settings, facts).drain()

    assert facts.of(ProjectionStalled)
    assert await balances.position() <= len(await bank.ask(f"select 1 from {bank.accounts}"))


@pytest.mark.parametrize("bank", ONE_OF_EACH, indirect=True)
@pytest.mark.parametrize("read", [(), (1,)])
async def test_a_projection_skips_no_event_where_all_were_deleted(
    bank: Bank, settings: Settings, read: tuple[int, ...]
) -> None:
    facts, balances = Facts(), Balances(bank)
    projector = balances.projector(settings, facts)
    await publish(bank, settings, *payments("a", *read))
    await projector.drain()
    await publish(bank, settings, *payments("a", 2, 3))
    await bank.ask(f"delete from {bank.statements.table('positions')}")

    await projector.drain()

    [stalled] = facts.of(ProjectionStalled)
    lost = f"the events from position {len(read) + 1} to {len(read) + 2} were deleted before it read them"
    assert stalled.error.startswith(f"HoldfastError: {lost}; ")


async def test_a_worker_runs_what_it_includes_and_its_own_write_can_be_read(bank: Bank, settings: Settings) -> None:
    facts, balances = Facts(), Balances(bank)
    journal, worker = Journal(bank.database, settings), a_worker(settings, facts)
    worker.include(balances.projection, within=bank.database)
    outbox = Outbox(settings)

    async with running(worker):
        async with bank.transaction() as within:
            sent = await bank.publish(outbox, within, Paid(account="a", cents=3))
        reached = await journal.reached(balances.projection, sent.event_id, within=30)
        rows = await balances.rows()

    assert reached
    assert [(account, int(total)) for account, total in rows] == [("a", 3)]
    assert not await journal.reached(balances.projection, "unknown", within=0.02)


class WokenWhileItReads(Projector):
    """A projection that finds nothing, and is woken before it says so."""

    turns = 0
    looked = asyncio.Event()

    async def _turn(self) -> bool:
        self.turns += 1
        if self.turns == 1:
            self.wake()
        else:
            self.looked.set()
            await asyncio.Event().wait()
        return False


@pytest.mark.parametrize("bank", keeping(server=False)[:1], indirect=True)
async def test_a_projection_that_is_woken_while_it_reads_looks_again(bank: Bank, settings: Settings) -> None:
    stands_still = VirtualClock()
    balances = Balances(bank)
    projector = WokenWhileItReads(balances.projection, bank.database, settings, Facts().record, stands_still)

    running = asyncio.create_task(projector.run())
    await asyncio.wait_for(projector.looked.wait(), LIMIT)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert projector.turns == 2


@pytest.mark.parametrize("bank", keeping(server=False)[:1], indirect=True)
async def test_a_projection_that_cannot_run_is_refused(bank: Bank, settings: Settings) -> None:
    empty, wrong = Projection("empty"), Projection("wrong")

    @wrong.on(Paid)
    async def note(event: Paid, at: Recorded, session: Any) -> None: ...

    for part, match in ((empty, "'empty' takes no event"), (wrong, "note has to be def")):
        worker = a_worker(settings, Facts())
        worker.include(part, within=bank.database)
        with pytest.raises(ConfigurationError, match=match):
            worker.selected()
    with pytest.raises(ConfigurationError, match="or a Projection"):
        worker.include(cast("Any", "x"), within=bank.database)
    with pytest.raises(ConfigurationError, match="includes 'wrong v1' twice"):
        worker.include(wrong, within=bank.database)
    with pytest.raises(ConfigurationError, match="two functions take Paid"):
        wrong.on(Paid)(note)
    with pytest.raises(ConfigurationError, match=r"'wrong': <lambda> must take \(event, at, session\)"):
        wrong.on(Noise)(lambda event, session: None)
    with pytest.raises(ConfigurationError, match=r"'wrong': <lambda> must take \(session\)"):
        wrong.begins(lambda: None)
    with pytest.raises(ConfigurationError, match="a name holds letters"):
        Projection("a b")
    with pytest.raises(ConfigurationError, match="version=0"):
        Projection("a", version=0)
