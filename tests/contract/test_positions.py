"""Positions of kept events: given after the commit, 1 to n, whatever the writers do."""

import asyncio
import random
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pytest
from databases import Bank, Kind, a_bank, banks, keeping
from waiting import Facts, eventually

from holdfast import ConfigurationError, Event, PublishRefused, Settings
from holdfast.broker import REAL, Broker
from holdfast.events import Message, headers
from holdfast.outbox import Relay
from holdfast.outbox.running import Swept, sweep
from holdfast.sql import OpenerAsync, Outbox, Steps, bounded
from holdfast.telemetry import OutboxCounted, Spans

POSTGRES = [each for each in keeping(server=True) if each.id == "asyncpg-session"]


class Counted(Event, type="counted", key="counter"):
    counter: str
    number: int = 0


class Confirming:
    """A broker that confirms what it is sent, but for the keys it is to refuse."""

    header_budget = 100_000

    def __init__(self) -> None:
        self.refused: set[str] = set()
        self.sent: list[Message] = []

    async def publish(self, message: Message, *, timeout: float | None) -> None:
        await asyncio.sleep(0)
        if str(message.headers.get(headers.EVENT_KEY)) in self.refused:
            raise PublishRefused("full")
        self.sent.append(message)

    async def declare(self, *arguments: Any) -> None: ...

    def numbers(self) -> dict[str, list[int]]:
        """The numbers that were sent first, of each key in order."""
        numbers = defaultdict[str, list[int]](list)
        for message in self.sent:
            event = Counted.model_validate_json(message.body)
            if event.number not in numbers[event.counter]:
                numbers[event.counter].append(event.number)
        return dict(numbers)


bank = banks(keeping(), keeps=True)


@pytest.fixture
def settings(unique: str) -> Settings:
    sql: Any = {"schema": unique, "lease": 30, "keep": "forever"}
    return Settings(_env_file=None, sql=sql)  # type: ignore[call-arg]


@pytest.fixture
def port() -> Confirming:
    return Confirming()


def a_relay(bank: Bank, port: Confirming, settings: Settings, facts: Facts | None = None) -> Relay:
    broker, emit = cast("Broker", port), (facts or Facts()).record
    return Relay(bank.database, broker, settings, emit=emit, spans=Spans(), clock=REAL, luck=lambda: 0.0)


async def publish(bank: Bank, settings: Settings, *events: Event) -> None:
    outbox = Outbox(settings, source="shop")
    async with bank.transaction() as within:
        for event in events:
            await bank.publish(outbox, within, event)


def counts(counter: str, *numbers: int) -> list[Event]:
    return [Counted(counter=counter, number=number) for number in numbers]


async def history(bank: Bank, *, after: int = 0) -> list[tuple[Any, ...]]:
    """Position, id and key of the events past a position, in order."""
    positions, events = bank.statements.table("positions"), bank.statements.table("events")
    return await bank.ask(
        f"select p.position, e.event_id, e.key, e.seq from {positions} p join {events} e on e.seq = p.seq "
        f"where p.position > {after} order by p.position"
    )


async def test_what_was_sent_stays_with_its_position(bank: Bank, port: Confirming, settings: Settings) -> None:
    await publish(bank, settings, *counts("a", 0, 1), *counts("b", 0))

    relay = a_relay(bank, port, settings)
    await relay.drain()
    await publish(bank, settings, *counts("a", 2))
    await relay.drain()

    assert port.numbers() == {"a": [0, 1, 2], "b": [0]}
    assert [(position, key) for position, _, key, _ in await history(bank)] == [(1, "a"), (2, "a"), (3, "b"), (4, "a")]
    assert [await bank.count(table) for table in ("events", "unsent")] == [4, 0]
    assert len(port.sent) == 4


async def test_a_kept_event_that_is_refused_holds_its_key(bank: Bank, port: Confirming, settings: Settings) -> None:
    port.refused.add("a")
    await publish(bank, settings, *counts("a", 0, 1), *counts("b", 0))
    relay = a_relay(bank, port, settings)
    await relay.drain()
    refused = port.numbers()
    port.refused.clear()
    await bank.ask(f"update {bank.statements.table('held')} set next_try = {bank.statements.now}")

    await relay.drain()

    assert refused == {"b": [0]}
    assert port.numbers() == {"a": [0, 1], "b": [0]}
    assert [await bank.count(table) for table in ("events", "unsent", "held")] == [3, 0, 0]


async def test_what_waits_is_counted_before_and_after_it_has_a_position(
    bank: Bank, port: Confirming, settings: Settings
) -> None:
    facts = Facts()
    port.refused.add("a")
    await publish(bank, settings, *counts("a", 0, 1), *counts("b", 0))
    relay = a_relay(bank, port, settings, facts)

    await relay._count()
    await relay.drain()
    await relay._count()

    counted = facts.of(OutboxCounted)
    assert (counted[0].pending, counted[-1].pending) == (3, 2)
    assert counted[-1].oldest > 0


async def test_more_events_than_are_given_positions_at_once_all_have_one(
    bank: Bank, port: Confirming, settings: Settings
) -> None:
    for n in range(5):
        await publish(bank, settings, *counts(f"k{n}", *range(250)))

    await a_relay(bank, port, settings).drain()

    assert [position for position, *_ in await history(bank)] == list(range(1, 1251))
    assert port.numbers() == {f"k{n}": list(range(250)) for n in range(5)}


@pytest.mark.parametrize("bank", POSTGRES, indirect=True)
async def test_an_event_that_commits_late_has_a_later_position(
    bank: Bank, port: Confirming, settings: Settings
) -> None:
    events = bank.statements.table("events")
    relay = a_relay(bank, port, settings)

    async with bank.transaction() as within:
        await within.execute(_text(insertion(events, "late")))
        await publish(bank, settings, *counts("early", 0))
        for _ in range(3):
            await relay.drain()
        early = await history(bank)
    await relay.drain()

    assert [(position, key) for position, _, key, _ in early] == [(1, "early")]
    assert [(position, key) for position, _, key, _ in await history(bank)] == [(1, "early"), (2, "late")]
    assert [seq for *_, seq in await history(bank)] == [2, 1]


@pytest.mark.parametrize("bank", POSTGRES, indirect=True)
async def test_the_search_rises_past_what_no_writer_can_bring(bank: Bank, port: Confirming, settings: Settings) -> None:
    events, cursors = bank.statements.table("events"), bank.statements.table("cursors")
    relay = a_relay(bank, port, settings)

    async def floor() -> int:
        for _ in range(4):
            await relay.drain()
        return int((await bank.ask(f"select position from {cursors} where name = 'floor'"))[0][0])

    async with bank.transaction() as within:
        await within.execute(_text(insertion(events, "late")))
        await publish(bank, settings, *counts("early", 0))
        while_open = await floor()
    after = await floor()

    assert (while_open, after) == (0, 2)


@pytest.mark.parametrize("bank", POSTGRES, indirect=True)
async def test_a_sequencer_that_was_frozen_is_ended_by_the_database(
    bank: Bank, port: Confirming, settings: Settings
) -> None:
    kept, relay = bank.database.kept(settings.sql.schema), a_relay(bank, port, settings)
    await publish(bank, settings, *counts("a", 0))

    async def drained() -> bool:
        await relay.drain()
        return bool(port.sent)

    def locked() -> Steps[None]:
        yield kept.sequencer, {}

    opener = cast("OpenerAsync", bank.database.opener)
    with suppress(Exception):  # its connection is closed
        async with opener.begin(bounded(locked(), "postgresql", 0.3)):
            await relay.drain()
            sent_meanwhile = len(port.sent)
            await eventually(drained)

    assert sent_meanwhile == 0
    assert port.numbers() == {"a": [0]}


class Uncounted(Relay):
    """A relay for which the database has no time to count what waits."""

    def _figures(self) -> Any:
        yield "select 1 from nowhere", {}


async def test_a_relay_sends_where_what_waits_cannot_be_counted(
    bank: Bank, port: Confirming, settings: Settings
) -> None:
    await publish(bank, settings, *counts("a", 0))
    broker, emit = cast("Broker", port), Facts().record
    relay = Uncounted(bank.database, broker, settings, emit=emit, spans=Spans(), clock=REAL, luck=lambda: 0.0)

    with pytest.raises(Exception, match="nowhere"):
        await relay.drain()
    await relay.drain()

    assert port.numbers() == {"a": [0]}


class Crowd:
    """Eight writers that count up, some of the time in vain, two relays, a long transaction and a reader."""

    def __init__(self, bank: Bank, settings: Settings, port: Confirming) -> None:
        self.bank, self.settings, self.port = bank, settings, port
        self.luck, self.over = random.Random(7), asyncio.Event()
        self.seen: list[tuple[Any, ...]] = []

    async def write(self) -> None:
        for _ in range(25):
            with suppress(Exception):  # it rolls back, or its backend is killed
                async with self.bank.transaction() as within:
                    await self.count_up(within)

    async def count_up(self, within: Any) -> None:
        key, end = f"k{self.luck.randrange(6)}", self.luck.random()
        count = f"update {self.bank.accounts} set cents = cents + 1 where account = '{key}' returning cents"
        number = (await within.execute(_text(count))).scalar_one()
        Outbox(self.settings).publish(within, Counted(counter=key, number=number))
        await within.execute(_text(f"select pg_sleep({self.luck.random() / 100})"))
        if end < 0.1:
            raise ZeroDivisionError
        if end < 0.15:
            await within.execute(_text("select pg_terminate_backend(pg_backend_pid())"))

    async def hold_open(self) -> None:
        async with self.bank.transaction() as within:
            await within.execute(_text(insertion(self.bank.statements.table("events"), "slow")))
            await self.over.wait()

    async def read(self) -> None:
        while not self.over.is_set() or len(self.seen) < await self.bank.count("events"):
            self.seen.extend(await history(self.bank, after=self.seen[-1][0] if self.seen else 0))

    async def relay(self) -> None:
        relay = a_relay(self.bank, self.port, self.settings)
        while not self.over.is_set() or await self.is_behind():
            await relay.drain()

    async def is_behind(self) -> bool:
        waiting, given, written = [await self.bank.count(table) for table in ("unsent", "positions", "events")]
        return waiting > 0 or given < written

    async def gather(self) -> None:
        async with asyncio.TaskGroup() as group:
            for step in (self.hold_open, self.read, self.relay, self.relay):
                group.create_task(step())
            await asyncio.gather(*(self.write() for _ in range(8)))
            self.over.set()


@pytest.mark.parametrize("bank", POSTGRES, indirect=True)
async def test_positions_are_one_to_n_whatever_the_writers_do(bank: Bank, port: Confirming, settings: Settings) -> None:
    for n in range(6):
        await bank.ask(f"insert into {bank.accounts} values ('k{n}', 0)")
    crowd = Crowd(bank, settings, port)

    await crowd.gather()

    full = await history(bank)
    assert [position for position, *_ in full] == list(range(1, len(full) + 1))
    assert len({event_id for _, event_id, *_ in full}) == len(full) == await bank.count("events")
    assert crowd.seen == full
    totals = dict(await bank.ask(f"select account, cents from {bank.accounts}"))
    sent = port.numbers()
    assert sent.pop("slow") == [0]
    assert sent == {key: list(range(1, total + 1)) for key, total in totals.items() if total}


async def test_events_are_deleted_once_they_were_kept_for_long_enough(
    bank: Bank, port: Confirming, settings: Settings
) -> None:
    settings = settings.model_copy(update={"sql": settings.sql.model_copy(update={"keep": 100.0})})
    await publish(bank, settings, *counts("a", 0, 1, 2))
    await a_relay(bank, port, settings).drain()
    port.refused.add("b")
    await publish(bank, settings, *counts("b", 0))
    relay = a_relay(bank, port, settings)
    await relay.drain()
    events, now = bank.statements.table("events"), bank.statements.now
    old = f"{now} - interval '101 seconds'" if bank.kind.is_postgres else f"{now} - 101"
    await bank.ask(f"update {events} set written_at = {old} where seq <> 2")

    swept = await sweep(relay, settings)

    assert swept == Swept(0, 2)
    assert [(position, key) for position, _, key, _ in await history(bank)] == [(2, "a"), (4, "b")]
    [(last, first, forgot)] = await bank.ask(bank.database.history(settings.sql.schema).bounds)
    assert (last, first, forgot) == (4, 2, 3)


async def test_programs_agree_whether_events_are_kept(bank: Bank, settings: Settings) -> None:
    await bank.database.check(settings.sql.schema, keeps=True)

    with pytest.raises(ConfigurationError, match="its tables keep events, which are never sent without HOLDFAST_SQL"):
        await bank.database.check(settings.sql.schema)


@pytest.mark.parametrize("kind", keeping())
async def test_tables_without_a_journal_do_not_keep_events(
    kind: Kind, unique: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue(f"{kind.server}_url") if kind.server else ""
    async with a_bank(kind, url, unique, tmp_path) as bank:
        with pytest.raises(ConfigurationError, match="holdfast sql schema --journal"):
            await bank.database.check(unique, keeps=True)


def insertion(events: str, key: str) -> str:
    """A row that is written at once, with its number, in a transaction that is still open."""
    return (
        f"insert into {events} (shard, event_id, event_type, version, key, source, time, headers, content_type, body) "
        f"values (0, '{key}', 'counted', 1, '{key}', 'shop', now(), '{{}}', 'application/json', "
        f"""'{{"counter": "{key}"}}')"""
    )


def _text(statement: str) -> Any:
    from sqlalchemy import text

    return text(statement.replace('": "', '"\\: "'))
