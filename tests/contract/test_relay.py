"""What a relay does with committed events, on each kind of database: one suite for all."""

import asyncio
import time
from collections import defaultdict
from contextlib import AsyncExitStack
from datetime import datetime
from typing import Any, cast

import psycopg_pool
import pytest
from databases import KINDS, Bank, banks, openers
from waiting import LIMIT, Arrivals, Facts

from holdfast import Event, Metadata, PublishRefused, Settings
from holdfast.broker import REAL, Broker
from holdfast.broker.codec import pack
from holdfast.config import PublisherSettings
from holdfast.events import Message, NotConnected, Unroutable, headers
from holdfast.outbox import Relay
from holdfast.outbox.running import Swept, sweep
from holdfast.sql import Database, DatabaseUnavailable, Listener, Outbox
from holdfast.telemetry import OutboxCounted, OutboxHeld, OutboxUnrouted, Published, Relayed, Spans

SOME = [each for each in openers() if each.id in ("sqlite", "asyncpg-session", "psycopg-session")]
SESSIONS = [each for each in openers(server=True) if each.id in ("asyncpg-session", "psycopg-session")]

# In SQLite one transaction writes at a time, and with Django a thread has one.
TWO_AT_A_TIME = [each for each in openers(server=True) if each.id != "django"]

bank = banks(openers())


class Ordered(Event, type="ordered", key="order"):
    order: str
    number: int = 0


class Noted(Event, type="noted"):
    number: int


class Port(Arrivals[Message]):
    """A broker that confirms what it is sent, but for what it is made to refuse, lose or hold."""

    header_budget = 100_000

    def __init__(self) -> None:
        super().__init__()
        self.refused: set[str] = set()
        self.unroutable: set[str] = set()
        self.is_away = False
        self.held: dict[str, asyncio.Event] = {}
        self.confirmed: list[Message] = []

    async def publish(self, message: Message, *, timeout: float | None) -> None:
        self(message)
        await asyncio.sleep(0)
        key = str(message.headers.get(headers.EVENT_KEY))
        if key in self.held:
            await self.held[key].wait()
        if self.is_away:
            raise NotConnected("away")
        if key in self.refused:
            raise PublishRefused("full")
        if message.type in self.unroutable and message.exchange == "events":
            raise Unroutable("no queue")
        self.confirmed.append(message)
        self.ring()

    async def declare(self, *arguments: Any) -> None: ...

    def keys(self) -> list[str]:
        return [str(message.headers[headers.EVENT_KEY]) for message in self.confirmed]

    def numbers(self) -> dict[str, list[int]]:
        """The numbers that were confirmed, of each key in order."""
        numbers = defaultdict(list)
        for message in self.confirmed:
            event = Ordered.model_validate_json(message.body)
            numbers[event.order].append(event.number)
        return dict(numbers)


@pytest.fixture
def port() -> Port:
    return Port()


@pytest.fixture
def settings(unique: str) -> Settings:
    return Settings(_env_file=None, sql={"schema": unique, "lease": 30, "inbox_ttl": 100})  # type: ignore[call-arg, arg-type]


def a_relay(bank: Bank, port: Port, settings: Settings, facts: Facts | None = None) -> Relay:
    broker, emit = cast("Broker", port), (facts or Facts()).record
    return Relay(bank.database, broker, settings, emit=emit, spans=Spans(), clock=REAL, luck=lambda: 0.0)


async def publish(bank: Bank, settings: Settings, *events: Event, delay: float | None = None) -> list[str]:
    """Commit events in one transaction. Returns their ids."""
    outbox = Outbox(settings, source="shop")
    async with bank.transaction() as within:
        return [(await bank.publish(outbox, within, event, delay=delay)).event_id for event in events]


def orders(*keys: str, each: int = 1) -> list[Event]:
    return [Ordered(order=key, number=number) for number in range(each) for key in keys]


async def test_what_committed_is_sent_as_it_was_published_and_then_deleted(
    bank: Bank, port: Port, settings: Settings
) -> None:
    facts = Facts()
    [event_id] = await publish(bank, settings, Ordered(order="o-1", number=7))

    await a_relay(bank, port, settings, facts).drain()

    [message] = port.confirmed
    assert (message.exchange, message.routing_key, message.type, message.app_id) == ("events", *["ordered"] * 2, "shop")
    assert (message.headers[headers.EVENT_ID], message.headers[headers.EVENT_KEY]) == (event_id, "o-1")
    assert (message.body, message.content_type) == (b'{"order":"o-1","number":7}', "application/json")
    assert message.timestamp is not None
    assert await bank.count("events") == 0
    [relayed] = facts.of(Relayed)
    assert len(relayed.seconds) == 1 and 0 <= relayed.seconds[0] < 60


@pytest.mark.parametrize("bank", SOME, indirect=True)
@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+00:00", "9999-12-31T23:59:59.999999+00:00"])
async def test_an_event_of_any_time_is_sent(bank: Bank, port: Port, settings: Settings, time: str) -> None:
    given = Metadata("e-1", "noted", datetime.fromisoformat(time))
    async with bank.transaction() as within:
        await bank.publish(Outbox(settings), within, Noted(number=1), metadata=given)

    await a_relay(bank, port, settings).drain()

    [message] = port.confirmed
    assert pack(message)
    assert message.headers[headers.EVENT_TIME].startswith(time[:19])


async def test_events_of_a_key_are_sent_one_after_the_other(bank: Bank, port: Port, settings: Settings) -> None:
    port.held["a"] = asyncio.Event()
    await publish(bank, settings, *orders("a", "b", each=3))

    draining = asyncio.create_task(a_relay(bank, port, settings).drain())
    await port.until_true(lambda: port.keys().count("b") == 3)
    waiting = [message for message in port.all if message.headers[headers.EVENT_KEY] == "a"]
    port.held["a"].set()
    await draining

    assert len(waiting) == 1
    assert port.numbers() == {"a": [0, 1, 2], "b": [0, 1, 2]}


async def test_a_refused_event_holds_its_key_and_no_other(bank: Bank, port: Port, settings: Settings) -> None:
    facts = Facts()
    port.refused.add("a")
    await publish(bank, settings, *orders("a", "b", each=2))
    relay = a_relay(bank, port, settings, facts)

    await relay.drain()
    await publish(bank, settings, Ordered(order="a", number=2), Ordered(order="b", number=2))
    await relay.drain()

    assert port.numbers() == {"b": [0, 1, 2]}
    assert {fact.key for fact in facts.of(OutboxHeld)} == {"a"}  # on a slow machine it is tried again meanwhile
    assert await bank.count("held") == 1


async def test_a_held_key_goes_on_in_order_once_its_event_is_accepted(
    bank: Bank, port: Port, settings: Settings
) -> None:
    port.refused.add("a")
    await publish(bank, settings, *orders("a", each=3))
    relay = a_relay(bank, port, settings)
    await relay.drain()
    port.refused.clear()
    await bank.ask(f"update {bank.statements.table('held')} set next_try = {bank.statements.now}")

    await relay.drain()

    assert port.numbers() == {"a": [0, 1, 2]}
    assert [await bank.count(table) for table in ("events", "held")] == [0, 0]


async def test_a_key_that_one_relay_held_goes_on_by_another(bank: Bank, port: Port, settings: Settings) -> None:
    port.refused.add("a")
    await publish(bank, settings, *orders("a", each=3))
    first = a_relay(bank, port, settings)
    await first.drain()
    await first.leases.leave()
    port.refused.clear()
    await bank.ask(f"update {bank.statements.table('held')} set next_try = {bank.statements.now}")

    await a_relay(bank, port, settings).drain()

    assert port.numbers() == {"a": [0, 1, 2]}
    assert [await bank.count(table) for table in ("events", "held")] == [0, 0]


async def test_the_pause_of_an_event_that_is_held_grows_from_one_relay_to_the_next(
    bank: Bank, port: Port, settings: Settings
) -> None:
    facts = Facts()
    port.refused.add("a")
    await publish(bank, settings, Ordered(order="a"))
    for _ in range(3):
        relay = a_relay(bank, port, settings, facts)
        await relay.drain()
        await relay.leases.leave()
        await bank.ask(f"update {bank.statements.table('held')} set next_try = {bank.statements.now}")

    assert [fact.again_in for fact in facts.of(OutboxHeld)] == [0.5, 1.0, 2.0]


async def test_an_event_that_nobody_listens_for_rests_and_holds_nobody_up(
    bank: Bank, port: Port, settings: Settings
) -> None:
    facts = Facts()
    port.unroutable.add("noted")
    await publish(bank, settings, Noted(number=1), Ordered(order="a"))

    await a_relay(bank, port, settings, facts).drain()

    assert sorted(message.exchange for message in port.confirmed) == ["events", "holdfast.unrouted"]
    assert [fact.event_type for fact in facts.of(OutboxUnrouted)] == ["noted"]
    assert await bank.count("events") == 0


async def test_an_event_that_may_have_no_listener_is_dropped_by_the_relay(
    bank: Bank, port: Port, settings: Settings
) -> None:
    facts = Facts()
    settings = settings.model_copy(update={"publisher": PublisherSettings(may_be_unrouted=("paid", "noted.#"))})
    port.unroutable.add("noted")
    await publish(bank, settings, Noted(number=1))

    await a_relay(bank, port, settings, facts).drain()

    assert (port.confirmed, [fact.outcome for fact in facts.of(Published)]) == ([], ["dropped"])
    assert await bank.count("events") == 0


async def test_an_event_for_later_goes_to_the_delay_ladder_with_the_rest_of_its_delay(
    bank: Bank, port: Port, settings: Settings
) -> None:
    await publish(bank, settings, Ordered(order="a"), delay=1000)

    await a_relay(bank, port, settings).drain()

    [message] = port.confirmed
    assert message.exchange.startswith("holdfast.delays.")


async def test_what_is_not_confirmed_stays_and_is_sent_again_with_the_same_id(
    bank: Bank, port: Port, settings: Settings
) -> None:
    [event_id] = await publish(bank, settings, Ordered(order="a"))
    relay = a_relay(bank, port, settings)
    port.is_away = True
    await relay.drain()
    left = await bank.count("events")
    port.is_away = False

    await relay.drain()

    assert left == 1
    assert [message.headers[headers.EVENT_ID] for message in port.all] == [event_id] * 2
    assert await bank.count("events") == 0


@pytest.mark.parametrize("bank", SOME, indirect=True)
async def test_the_next_events_are_read_and_sent_while_one_is_unconfirmed(
    bank: Bank, port: Port, settings: Settings
) -> None:
    port.held["a"] = asyncio.Event()
    others = [Ordered(order=f"b-{number % 200}", number=number // 200) for number in range(1200)]
    await publish(bank, settings, *orders("a"), *others, Ordered(order="a", number=1))

    draining = asyncio.create_task(a_relay(bank, port, settings).drain())
    await port.until_true(lambda: len(port.confirmed) == 1200)
    port.held["a"].set()
    await draining

    assert set(port.numbers()) == {"a"} | {f"b-{number}" for number in range(200)}
    assert all(numbers == sorted(numbers) for numbers in port.numbers().values())
    assert len(port.confirmed) == 1202
    assert await bank.count("events") == 0


@pytest.mark.parametrize("bank", SOME, indirect=True)
async def test_what_was_confirmed_when_the_database_failed_is_noted_and_not_repeated(
    bank: Bank, port: Port, settings: Settings
) -> None:
    events, aside = bank.statements.table("events"), f"{settings.sql.schema}_aside"
    port.held["a"] = asyncio.Event()
    await publish(bank, settings, *orders("a", "b"))
    relay = a_relay(bank, port, settings)

    draining = asyncio.create_task(relay.drain())
    await port.until_true(lambda: port.keys() == ["b"])
    await bank.ask(f"alter table {events} rename to {aside}")
    port.held["a"].set()
    [failure] = await asyncio.gather(draining, return_exceptions=True)
    back = f"{settings.sql.schema}.{aside}" if bank.kind.is_postgres else aside
    await bank.ask(f"alter table {back} rename to {events.rpartition('.')[2]}")
    await relay.drain()

    assert isinstance(failure, Exception)
    assert sorted(port.keys()) == ["a", "b"] and len(port.all) == 2
    assert await bank.count("events") == 0


async def test_relays_share_the_shards(bank: Bank, port: Port, settings: Settings) -> None:
    relays = [a_relay(bank, port, settings) for _ in range(3)]

    for _ in range(3):
        for relay in relays:
            await relay.leases.keep()

    shares = [set(relay.leases.shards) for relay in relays]
    assert sorted(map(len, shares)) == [4, 6, 6]
    assert set.union(*shares) == set(range(16))


async def test_a_relay_that_has_no_shards_reads_no_events(bank: Bank, port: Port, settings: Settings) -> None:
    first, second = a_relay(bank, port, settings), a_relay(bank, port, settings)
    await first.leases.keep()
    await second.drain()
    await bank.ask(f"drop table {bank.statements.table('events')}")

    await second.drain()

    assert second.leases.shards == ()


async def test_leases_are_judged_by_the_clock_of_the_database(
    bank: Bank, port: Port, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = a_relay(bank, port, settings), a_relay(bank, port, settings)
    await publish(bank, settings, Ordered(order="a"))
    monkeypatch.setattr(time, "time", lambda: 4e9)

    await first.leases.keep()
    await second.leases.keep()
    await first.drain()

    assert (len(first.leases.shards), len(second.leases.shards)) == (16, 0)
    assert port.keys() == ["a"]


async def test_a_relay_that_stops_gives_its_shards_back(bank: Bank, port: Port, settings: Settings) -> None:
    first, second = a_relay(bank, port, settings), a_relay(bank, port, settings)
    await first.leases.keep()
    await first.leases.leave()

    await second.leases.keep()

    assert len(second.leases.shards) == 16


async def test_what_a_relay_notes_past_its_lease_changes_nothing(bank: Bank, port: Port, settings: Settings) -> None:
    port.held["a"] = asyncio.Event()
    await publish(bank, settings, Ordered(order="a"))
    late = a_relay(bank, port, settings)
    draining = asyncio.create_task(late.drain())
    await port.next()
    cursors = bank.statements.table("cursors")
    await bank.ask(f"update {cursors} set token = 'another' where name like 'shard:%'")

    port.held["a"].set()
    await draining

    assert await bank.count("events") == 1


async def test_what_a_relay_was_refused_past_its_lease_holds_no_key(bank: Bank, port: Port, settings: Settings) -> None:
    port.held["a"] = asyncio.Event()
    port.refused.add("a")
    await publish(bank, settings, Ordered(order="a"))
    late = a_relay(bank, port, settings)
    draining = asyncio.create_task(late.drain())
    await port.next()
    cursors = bank.statements.table("cursors")
    await bank.ask(f"update {cursors} set token = 'another' where name like 'shard:%'")

    port.held["a"].set()
    await draining

    assert await bank.count("held") == 0


@pytest.mark.parametrize("bank", TWO_AT_A_TIME, indirect=True)
async def test_a_late_commit_is_sent_late_and_delays_nobody(bank: Bank, port: Port, settings: Settings) -> None:
    outbox, relay = Outbox(settings), a_relay(bank, port, settings)

    async with bank.transaction() as within:
        await bank.publish(outbox, within, Ordered(order="late"))
        await publish(bank, settings, Ordered(order="early"))
        await relay.drain()
        early = port.keys()
    await relay.drain()

    assert early == ["early"]
    assert port.keys() == ["early", "late"]


async def test_figures_say_how_far_a_relay_is_behind(bank: Bank, port: Port, settings: Settings) -> None:
    facts = Facts()
    port.refused.add("a")
    await publish(bank, settings, *orders("a", "b", each=2))
    relay = a_relay(bank, port, settings, facts)

    await relay.drain()
    await relay._count()

    first, last = facts.of(OutboxCounted)[0], facts.of(OutboxCounted)[-1]
    assert (first.pending, first.held, first.shards) == (4, 0, 16)
    assert (last.pending, last.held) == (2, 1) and last.oldest > 0


async def test_old_rows_of_the_inbox_are_deleted_by_one_relay_at_a_time(
    bank: Bank, port: Port, settings: Settings
) -> None:
    inbox, now = bank.statements.table("inbox"), bank.statements.now
    old = f"{now} - interval '101 seconds'" if bank.kind.is_postgres else f"{now} - 101"
    empty = "''" if bank.kind.is_postgres else "x''"
    for queue, handled_at in (("old", old), ("new", now)):
        await bank.ask(f"insert into {inbox} values ('{queue}', {empty}, {empty}, {handled_at})")

    first, second = a_relay(bank, port, settings), a_relay(bank, port, settings)
    deleted = await sweep(first, settings), await sweep(second, settings)

    assert deleted == (Swept(1), Swept())
    assert await bank.ask(f"select queue from {inbox}") == [("new",)]


async def test_a_relay_looks_again_by_itself(bank: Bank, port: Port, settings: Settings) -> None:
    relay = a_relay(bank, port, settings)
    running = asyncio.create_task(relay.run())
    try:
        await publish(bank, settings, Ordered(order="a"))
        await port.next()
    finally:
        relay.stop()
        await running

    assert await bank.count("events") == 0


@pytest.mark.parametrize("bank", SESSIONS, indirect=True)
@pytest.mark.parametrize("name", ["asyncpg-session", "psycopg-async-session", "asyncpg", "psycopg-async"])
async def test_a_relay_hears_of_the_commit_of_a_session(
    bank: Bank, name: str, settings: Settings, postgres_url: str
) -> None:
    kind, heard, deaf = next(kind for kind in KINDS if kind.name == name), Arrivals[None](), list[str]()

    async with AsyncExitStack() as stack:
        database = await kind.open(stack, postgres_url, "")
        listener = Listener(database, settings.sql.schema, lambda: heard(None))
        listening = asyncio.create_task(listener.listen(lambda: deaf.append(name)))
        await heard.next()  # the notification by which it proves that it hears
        await publish(bank, settings, Ordered(order="a"))
        await heard.next()
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)

    assert deaf == []


@pytest.mark.server
async def test_a_listener_that_cannot_ask_for_its_own_notification_ends(settings: Settings, postgres_url: str) -> None:
    pool = psycopg_pool.AsyncConnectionPool(postgres_url, min_size=1, max_size=1, timeout=0.2, open=False)
    async with pool, asyncio.timeout(LIMIT):
        listener = Listener(Database.psycopg(pool), settings.sql.schema, lambda: None)

        with pytest.raises(ExceptionGroup) as failure:  # it has the one connection of the pool
            await listener.listen(lambda: None)

    assert [type(error) for error in failure.value.exceptions] == [DatabaseUnavailable]
