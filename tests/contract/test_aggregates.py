"""Aggregates in the journal: loaded from their events, and appended to, on each kind of session and connection."""

import asyncio
import inspect
from contextlib import suppress
from typing import Any

import pytest
from databases import Bank, banks, keeping
from running import a_worker, running
from waiting import Facts

from holdfast import ConfigurationError, Context, Event, Publisher, Reject, Retry, Settings, UnknownType, upcast
from holdfast.journal import Aggregate, Conflict, Journal, applies
from holdfast.telemetry import Settled

POSTGRES = keeping(server=True)


class Withdraw(Event, type="withdraw", key="account"):
    account: str
    cents: int


class Deposited(Event, type="deposited", key="account"):
    account: str
    euros: int


class DepositedV2(Event, type="deposited", version=2, key="account"):
    account: str
    cents: int


@upcast(Deposited, DepositedV2)
def in_cents(event: Deposited) -> DepositedV2:
    return DepositedV2(account=event.account, cents=100 * event.euros)


class Withdrawn(Event, type="withdrawn", key="account"):
    account: str
    cents: int


class Account(Aggregate, key="account"):
    account: str
    cents: int = 0
    applied: int = 0

    @applies(DepositedV2)
    def deposited(self, event: DepositedV2) -> None:
        self.cents += event.cents

    @applies(Withdrawn)
    def withdrawn(self, event: Withdrawn) -> None:
        self.cents -= event.cents
        self.applied += 1

    def deposit(self, cents: int) -> None:
        self.record(DepositedV2(account=self.account, cents=cents))

    def withdraw(self, cents: int) -> None:
        if cents > self.cents:
            raise Reject(f"{self.cents} are left")
        self.record(Withdrawn(account=self.account, cents=cents))


class Savings(Aggregate, key="account"):
    """Another aggregate, with the same keys."""

    account: str
    cents: int = 0

    @applies(Deposited)
    def deposited(self, event: Deposited) -> None:
        self.cents += 100 * event.euros


bank = banks(keeping(), keeps=True)


@pytest.fixture
def settings(unique: str) -> Settings:
    broker: Any = {"url": f"memory://{unique}", "exchange": unique}
    sql: Any = {"schema": unique, "keep": "forever", "poll": 0.05}
    return Settings(_env_file=None, broker=broker, sql=sql)  # type: ignore[call-arg]


@pytest.fixture
def journal(bank: Bank, settings: Settings) -> Journal:
    return Journal(bank.database, settings, source="desk")


async def done(answer: Any) -> Any:
    return await answer if inspect.isawaitable(answer) else answer


async def deposit(bank: Bank, journal: Journal, account: str, *amounts: int) -> None:
    """What an application does: one transaction for each deposit."""
    for cents in amounts:
        async with bank.transaction() as within:
            loaded = await done(journal.load(Account, account, within))
            loaded.deposit(cents)
            await done(journal.append(loaded, within))


async def the_account(bank: Bank, journal: Journal, account: str) -> Account:
    async with bank.transaction() as within:
        loaded: Account = await done(journal.load(Account, account, within))
    return loaded


async def versions(bank: Bank, account: str = "a") -> list[tuple[str, int]]:
    events = bank.statements.table("events")
    return [
        tuple(row)  # type: ignore[misc]
        for row in await bank.ask(
            f"select event_type, stream_version from {events} where key = '{account}' "
            "and stream = 'account' order by stream_version"
        )
    ]


def a_desk(bank: Bank, settings: Settings, facts: Facts, journal: Journal, tries: list[int]) -> Any:
    """A worker that withdraws."""
    worker = a_worker(settings, facts)

    async def on_loop(command: Withdraw, ctx: Context, session: Any) -> None:
        tries.append(ctx.attempt)
        account: Any = await journal.load(Account, command.account, session)
        account.withdraw(command.cents)
        await journal.append(account, session)

    def in_thread(command: Withdraw, ctx: Context, session: Any) -> None:
        tries.append(ctx.attempt)
        account: Any = journal.load(Account, command.account, session)
        account.withdraw(command.cents)
        journal.append(account, session)

    handler: Any = on_loop if bank.database.is_async else bank.finding_session(in_thread)
    worker.handler(Withdraw, name="withdraw", within=bank.database, retry=Retry(attempts=1))(handler)

    @worker.handler(Withdrawn, idempotent=False)
    async def watch(event: Withdrawn) -> None: ...

    return worker


async def withdraw(settings: Settings, *amounts: int) -> None:
    async with Publisher(settings) as publisher:
        for sent in await publisher.publish_many([Withdraw(account="a", cents=cents) for cents in amounts]):
            assert not isinstance(sent, BaseException)


async def test_an_aggregate_is_what_its_events_make_it(bank: Bank, journal: Journal) -> None:
    await deposit(bank, journal, "a", 100, 50)
    await deposit(bank, journal, "b", 7)

    loaded = await the_account(bank, journal, "a")

    assert (loaded.account, loaded.cents) == ("a", 150)
    assert await versions(bank) == [("deposited", 1), ("deposited", 2)]
    assert (await the_account(bank, journal, "nobody")).cents == 0


async def test_a_handler_decides_on_an_aggregate_and_its_events_are_published(
    bank: Bank, settings: Settings, journal: Journal
) -> None:
    facts = Facts()
    await deposit(bank, journal, "a", 100)

    async with running(a_desk(bank, settings, facts, journal, [])):
        await withdraw(settings, 30)
        [published] = await facts.until(Settled, lambda fact: fact.handler == "watch")
        await withdraw(settings, 80)
        await facts.until(Settled, lambda fact: fact.outcome == "dead_lettered")

    assert await versions(bank) == [("deposited", 1), ("withdrawn", 2)]
    assert (await the_account(bank, journal, "a")).cents == 70
    metadata = published.metadata
    assert (metadata.key, metadata.caused_by) == ("a", f"{settings.broker.exchange}.w.withdraw")
    assert metadata.causation_id == metadata.correlation_id is not None


@pytest.mark.parametrize("bank", POSTGRES, indirect=True)  # in SQLite one transaction writes at a time
async def test_whoever_was_slower_decides_again_without_spending_an_attempt(
    bank: Bank, settings: Settings, journal: Journal
) -> None:
    facts, tries = Facts(), list[int]()
    await deposit(bank, journal, "a", 1000)

    async with running(a_desk(bank, settings, facts, journal, tries)):
        await withdraw(settings, *[1] * 20)
        await facts.until(Settled, lambda fact: fact.handler == "withdraw" and fact.outcome == "handled", count=20)

    assert (await the_account(bank, journal, "a")).cents == 980
    assert [version for _, version in await versions(bank)] == list(range(1, 22))
    assert set(tries) == {1}


@pytest.mark.parametrize("bank", [each for each in POSTGRES if each.id != "django"], indirect=True)  # one a thread
async def test_an_application_that_was_slower_gets_a_conflict(bank: Bank, journal: Journal) -> None:
    await deposit(bank, journal, "a", 100)

    async def decide(*, meanwhile: int) -> None:
        async with bank.transaction() as within:
            loaded = await done(journal.load(Account, "a", within))
            await deposit(bank, journal, "a", meanwhile)
            loaded.withdraw(100)
            await done(journal.append(loaded, within))

    with pytest.raises(Conflict):
        await decide(meanwhile=5)

    assert await versions(bank) == [("deposited", 1), ("deposited", 2)]


async def test_history_is_read_through_upcasts(bank: Bank, journal: Journal) -> None:
    events = bank.statements.table("events")
    await deposit(bank, journal, "a", 100)
    body = """'{"account": "a", "euros": 3}'"""
    body = f"convert_to({body}, 'UTF8')" if bank.kind.is_postgres else f"cast({body} as blob)"
    await bank.ask(f"update {events} set version = 1, body = {body}")

    assert (await the_account(bank, journal, "a")).cents == 300


async def test_two_aggregates_with_one_key_do_not_share_their_events(bank: Bank, journal: Journal) -> None:
    await deposit(bank, journal, "a", 100)
    async with bank.transaction() as within:
        savings = await done(journal.load(Savings, "a", within))
        savings.record(Deposited(account="a", euros=2))
        await done(journal.append(savings, within))

    async with bank.transaction() as within:
        loaded = await done(journal.load(Savings, "a", within))

    assert (loaded.cents, (await the_account(bank, journal, "a")).cents) == (200, 100)


async def test_a_snapshot_stands_for_the_events_before_it(bank: Bank, journal: Journal) -> None:
    snapshots, events = bank.statements.table("snapshots"), bank.statements.table("events")
    async with bank.transaction() as within:
        loaded = await done(journal.load(Account, "a", within))
        loaded.deposit(1000)
        for _ in range(120):
            loaded.withdraw(1)
        await done(journal.append(loaded, within))
    await deposit(bank, journal, "a", 5)
    taken = await bank.ask(f"select stream, key, stream_version, shape from {snapshots}")
    await bank.ask(f"delete from {events} where stream_version < 100")

    again = await the_account(bank, journal, "a")

    assert taken == [("account", "a", 121, 1)]
    assert (again.cents, again.applied) == (885, 120)


async def test_a_snapshot_of_another_shape_is_not_read(bank: Bank, journal: Journal) -> None:
    snapshots = bank.statements.table("snapshots")
    async with bank.transaction() as within:
        loaded = await done(journal.load(Account, "a", within))
        for _ in range(100):
            loaded.deposit(1)
        await done(journal.append(loaded, within))
    state = """'{"account": "a", "cents": 7}'"""
    await bank.ask(f"update {snapshots} set shape = 2, state = {state}")
    other_shape = await the_account(bank, journal, "a")
    await bank.ask(f"update {snapshots} set shape = 1")

    assert other_shape.cents == 100
    assert (await the_account(bank, journal, "a")).cents == 7


@pytest.mark.parametrize("bank", keeping(server=False)[:1], indirect=True)
async def test_an_event_that_the_aggregate_does_not_apply_is_named(bank: Bank, journal: Journal) -> None:
    await deposit(bank, journal, "a", 100)
    await bank.ask(f"update {bank.statements.table('events')} set event_type = 'renamed'")

    with pytest.raises(UnknownType, match="aggregate Account does not know 'renamed', which its history holds"):
        await the_account(bank, journal, "a")


@pytest.mark.parametrize("bank", keeping(server=False)[:1], indirect=True)
def test_a_journal_is_kept_forever(bank: Bank, settings: Settings) -> None:
    for keep in (0.0, 86400.0):
        shorter = settings.model_copy(update={"sql": settings.sql.model_copy(update={"keep": keep})})

        with pytest.raises(ConfigurationError, match="set HOLDFAST_SQL__KEEP=forever"):
            Journal(bank.database, shorter)


@pytest.mark.parametrize("bank", [each for each in POSTGRES if each.id == "asyncpg-session"], indirect=True)
async def test_writers_of_one_aggregate_make_each_version_once(bank: Bank, journal: Journal) -> None:
    async def write() -> None:
        for _ in range(20):
            with suppress(Conflict):
                await deposit(bank, journal, "a", 1)

    await asyncio.gather(*(write() for _ in range(8)))

    made = await versions(bank)
    assert [version for _, version in made] == list(range(1, len(made) + 1))
    assert (await the_account(bank, journal, "a")).cents == len(made) >= 20
