"""The tape is written into a journal: each event once, in order, wherever the recorder dies."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from typing import Any, ClassVar

import pytest
from databases import Bank, banks, keeping
from waiting import Facts, eventually

from holdfast import ConfigurationError, Event, HoldfastError, Publisher, Settings
from holdfast.broker import REAL, events_topology
from holdfast.broker.codec import pack
from holdfast.broker.memory import MemoryBroker
from holdfast.events import Envelope, Message, to_message
from holdfast.journal import Recorder, recorded_of
from holdfast.outbox import Relay
from holdfast.sql import History, Outbox, Steps
from holdfast.telemetry import Spans, TapeFailed, TapeGap, TapeLate, TapeRecorded, TapeUnrecorded

ONE_OF_EACH = [each for each in keeping() if each.id in ("sqlite", "asyncpg-session", "psycopg-session")]


class Counted(Event, type="counted", key="counter"):
    counter: str
    number: int = 0


bank = banks(ONE_OF_EACH, keeps=True)


@pytest.fixture
def settings(unique: str) -> Settings:
    broker: Any = {"url": f"memory://{unique}", "exchange": unique, "stream": f"{unique}.tape"}
    sql: Any = {"schema": unique, "keep": "forever"}
    return Settings(_env_file=None, broker=broker, sql=sql)  # type: ignore[call-arg]


@pytest.fixture
async def broker(settings: Settings) -> AsyncIterator[MemoryBroker]:
    broker = MemoryBroker(settings.broker.url.get_secret_value())
    await broker.declare(events_topology(settings.broker))
    yield broker
    await broker.close()


def a_recorder(
    bank: Bank, broker: MemoryBroker, settings: Settings, facts: Facts | None = None, kind: type[Recorder] = Recorder
) -> Recorder:
    return kind(bank.database, broker, settings, emit=(facts or Facts()).record, clock=REAL)


async def publish(settings: Settings, counter: str, numbers: range) -> list[str]:
    """Publish events. Returns their ids."""
    async with Publisher(settings) as publisher:
        return [(await publisher.publish(Counted(counter=counter, number=number))).event_id for number in numbers]


async def history(bank: Bank) -> list[tuple[Any, ...]]:
    positions, events = bank.statements.table("positions"), bank.statements.table("events")
    return await bank.ask(
        f"select p.position, e.event_id from {positions} p join {events} e on e.seq = p.seq order by p.position"
    )


async def test_events_of_the_tape_are_in_the_journal_in_its_order_and_not_sent_again(
    bank: Bank, broker: MemoryBroker, settings: Settings
) -> None:
    first = await publish(settings, "a", range(3))
    written = await a_recorder(bank, broker, settings).catch_up()
    second = await publish(settings, "b", range(700))

    again = await a_recorder(bank, broker, settings).catch_up()

    assert (written, again) == (3, 700)
    assert await history(bank) == list(enumerate(first + second, 1))
    assert await bank.count("unsent") == 0


class Killed(Exception):
    """Ends a recorder where its process would be killed."""


class Dying(History):
    """Statements that are not asked for where a recorder dies before it writes."""

    @property
    def lock_sequencer(self) -> str:
        Cut.die("began")
        return super().lock_sequencer


class Cut(Recorder):
    """A recorder that dies before the events are written, before its offset is, after that, and after the commit: once
    each."""

    left: ClassVar[list[str]] = []

    def __init__(self, database: Any, *arguments: Any, **options: Any) -> None:
        super().__init__(database, *arguments, **options)
        self._history = Dying(database.dialect, self._settings.sql.schema)

    @classmethod
    def die(cls, arrow: str) -> None:
        if arrow in cls.left:
            cls.left.remove(arrow)
            raise Killed(arrow)

    def _move(self, offset: int, event_id: str | None) -> Steps[None]:
        self.die("wrote")
        yield from super()._move(offset, event_id)
        self.die("moved")

    async def _write(self, taped: Any) -> int:
        written = await super()._write(taped)
        self.die("committed")
        return written


async def test_a_recorder_that_dies_at_each_arrow_writes_each_event_once(
    bank: Bank, broker: MemoryBroker, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Cut, "left", ["began", "wrote", "moved", "committed"])
    ids = await publish(settings, "a", range(20))

    deaths = 0
    while True:
        try:
            await a_recorder(bank, broker, settings, kind=Cut).catch_up()
            break
        except Killed:
            deaths += 1

    assert deaths == 4
    assert await history(bank) == list(enumerate(ids, 1))


async def test_two_recorders_write_each_event_once(bank: Bank, broker: MemoryBroker, settings: Settings) -> None:
    facts = Facts()
    running = [asyncio.create_task(a_recorder(bank, broker, settings, facts).run()) for _ in range(2)]

    ids = [await publish(settings, "a", range(n, n + 5)) for n in range(0, 40, 5)]
    await eventually(lambda: bank.count("positions"), 40)
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)

    assert await history(bank) == list(enumerate((event_id for few in ids for event_id in few), 1))


class CutShort(Recorder):
    """A recorder that is cancelled at the moment in which it is given what it waited for."""

    async def _known(self, scan: Any, event_id: str | None) -> list[Any]:
        task, read = asyncio.current_task(), scan.read

        async def read_and_cancel(most: int) -> list[Any]:
            taped: list[Any] = await read(most)
            assert task is not None
            task.cancel()
            return taped

        scan.read = read_and_cancel
        return await super()._known(scan, event_id)


async def test_a_recorder_ends_where_something_comes_as_it_is_cancelled(
    bank: Bank, broker: MemoryBroker, settings: Settings
) -> None:
    await publish(settings, "a", range(1))
    await a_recorder(bank, broker, settings).catch_up()

    recording = asyncio.create_task(a_recorder(bank, broker, settings, kind=CutShort).run())
    await asyncio.wait({recording}, timeout=10)

    assert recording.cancelled()


async def test_an_event_that_was_committed_here_is_not_written_a_second_time(
    bank: Bank, broker: MemoryBroker, settings: Settings
) -> None:
    outbox = Outbox(settings)
    async with bank.transaction() as within:
        own = (await bank.publish(outbox, within, Counted(counter="own"))).event_id
    relay = Relay(bank.database, broker, settings, emit=Facts().record, spans=Spans(), clock=REAL, luck=lambda: 0.0)
    await relay.drain()
    await relay.leases.leave()
    [other] = await publish(settings, "other", range(1))

    written = await a_recorder(bank, broker, settings).catch_up()

    assert written == 1
    assert await history(bank) == [(1, own), (2, other)]


async def test_what_was_deleted_before_it_was_read_is_said(
    bank: Bank, broker: MemoryBroker, settings: Settings
) -> None:
    facts = Facts()
    await publish(settings, "a", range(2))
    await a_recorder(bank, broker, settings).catch_up()
    stream = broker._join().queues[settings.broker.stream or ""]
    stream._most_bytes = 100  # type: ignore[attr-defined]

    ids = await publish(settings, "a", range(2, 20))
    await a_recorder(bank, broker, settings, facts).catch_up()

    [gap] = facts.of(TapeGap)
    recorded = [event_id for _, event_id in await history(bank)][2:]
    assert gap.first == 3 and len(recorded) == 18 - (gap.last - gap.first + 1)
    assert recorded == ids[-len(recorded) :]


async def test_a_stream_that_was_made_anew_is_recorded_from_its_first_message_on_request(
    bank: Bank, broker: MemoryBroker, settings: Settings
) -> None:
    await publish(settings, "a", range(3))
    await a_recorder(bank, broker, settings).catch_up()
    broker.delete_queue(settings.broker.stream or "")
    await broker.declare(events_topology(settings.broker))
    await publish(settings, "b", range(6))
    recorder = a_recorder(bank, broker, settings)

    with pytest.raises(HoldfastError, match="was made anew; record it from its first message: holdfast journal"):
        await recorder.catch_up()
    await recorder.begin_anew()

    assert await recorder.catch_up() == 6
    assert await bank.count("positions") == 9


async def test_a_recorder_whose_stream_cannot_be_read_says_so_and_goes_on(
    bank: Bank, broker: MemoryBroker, settings: Settings
) -> None:
    facts = Facts()
    recorder = a_recorder(bank, broker, settings, facts)
    running = asyncio.create_task(recorder.run())
    await publish(settings, "a", range(1))
    await facts.until(TapeRecorded)

    broker.lose_connection()
    [failed] = await facts.until(TapeFailed)
    await publish(settings, "a", range(1, 3))
    await eventually(lambda: bank.count("positions"), 3)
    await eventually(lambda: recorder.missing() is None)  # it says so once it has heard of its commit
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    assert "lost while" in failed.error


@pytest.mark.parametrize("bank", ONE_OF_EACH[:1], indirect=True)
async def test_messages_of_any_producer_are_kept_as_they_are_read(
    bank: Bank, broker: MemoryBroker, settings: Settings
) -> None:
    facts, exchange = Facts(), settings.broker.exchange
    cloud = {"specversion": "1.0", "id": "7", "source": "shop", "type": "cloudy", "data": {"a": 1}}
    messages = (
        Message(b'{"a":1}', exchange, "plain", message_id="m-1"),
        Message(gzip.compress(b'{"a":1}'), exchange, "packed", message_id="m-2", content_encoding="gzip"),
        Message(json.dumps(cloud).encode(), exchange, "x", content_type="application/cloudevents+json"),
        Message(b"\x89PNG", exchange, "picture", message_id="m-3", content_type="image/png"),
        Message(b"{}", exchange, "nul", message_id="m\x00"),
    )
    for message in messages:
        await broker.publish(message, timeout=10)

    await a_recorder(bank, broker, settings, facts).catch_up()

    events = bank.statements.table("events")
    assert await bank.ask(f"select event_id, event_type, content_type, body from {events} order by seq") == [
        ("m-1", "plain", "application/json", b'{"a":1}'),
        ("m-2", "packed", "application/json", b'{"a":1}'),
        ("shop#7", "cloudy", "application/json", b'{"a":1}'),
        ("m-3", "picture", "image/png", b"\x89PNG"),
    ]
    [left_out] = facts.of(TapeUnrecorded)
    assert (left_out.offset, left_out.stream) == (4, settings.broker.stream)


async def test_whatever_time_an_event_has_it_is_read_from_the_journal_and_sent_again(
    bank: Bank, broker: MemoryBroker, settings: Settings
) -> None:
    times = ("0001-01-01T00:00:00+01:00", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z")
    for number, time in enumerate(times):
        message = Message(b"{}", settings.broker.exchange, "timed", {"event-time": time}, message_id=f"m-{number}")
        await broker.publish(message, timeout=10)
    await a_recorder(bank, broker, settings).catch_up()
    history = bank.database.history(settings.sql.schema)

    def read() -> Steps[list[Any]]:
        return (yield history.select(history.after), {"after": "0", "most": 10})

    events = [recorded_of(row) for row in await bank.database.run(read())]

    sent = [to_message(Envelope(event.metadata, event.body), exchange="") for event in events]
    assert all(map(pack, sent))
    assert [event.metadata.time.year for event in events[1:]] == [1, 9999]
    assert sent[0].timestamp is not None


@pytest.mark.parametrize("bank", ONE_OF_EACH[:1], indirect=True)
async def test_a_recorder_that_is_far_behind_the_retention_says_so(
    bank: Bank, broker: MemoryBroker, settings: Settings
) -> None:
    facts = Facts()
    old = {"event-time": "2020-01-01T00:00:00+00:00"}
    await broker.publish(Message(b"{}", settings.broker.exchange, "old", old, message_id="m-1"), timeout=10)

    await a_recorder(bank, broker, settings, facts).catch_up()

    [late] = facts.of(TapeLate)
    assert late.seconds > settings.broker.stream_age / 2


@pytest.mark.parametrize("bank", ONE_OF_EACH[:1], indirect=True)
async def test_without_a_stream_there_is_nothing_to_record(
    bank: Bank, broker: MemoryBroker, settings: Settings
) -> None:
    without = settings.model_copy(update={"broker": settings.broker.model_copy(update={"stream": None})})

    with pytest.raises(ConfigurationError, match="HOLDFAST_BROKER__STREAM is not set"):
        a_recorder(bank, broker, without)


async def test_the_characters_that_json_writes_for_a_nul_are_none(
    bank: Bank, broker: MemoryBroker, settings: Settings
) -> None:
    facts, traceparent = Facts(), r"of \u0000 and \\u0000"
    for number, trace in enumerate((traceparent, "\x00", traceparent)):
        headers = {"traceparent": trace}
        message = Message(b"{}", settings.broker.exchange, "traced", headers, message_id=f"m-{number}")
        await broker.publish(message, timeout=10)

    await a_recorder(bank, broker, settings, facts).catch_up()

    assert [event_id for _, event_id in await history(bank)] == ["m-0", "m-2"]
    [left_out] = facts.of(TapeUnrecorded)
    assert (left_out.offset, "NUL" in left_out.error) == (1, True)


async def test_a_recorder_goes_on_behind_a_message_whose_id_has_a_nul(
    bank: Bank, broker: MemoryBroker, settings: Settings
) -> None:
    facts, named = Facts(), {"event-id": "e-1"}
    await broker.publish(Message(b"{}", settings.broker.exchange, "x", named, message_id="m\x00"), timeout=10)
    recording = asyncio.create_task(a_recorder(bank, broker, settings, facts).run())
    await facts.until(TapeRecorded)
    recording.cancel()
    await asyncio.gather(recording, return_exceptions=True)
    [after] = await publish(settings, "a", range(1))

    again = await a_recorder(bank, broker, settings, facts).catch_up()

    assert (again, facts.of(TapeFailed)) == (1, [])
    assert await history(bank) == [(1, "e-1"), (2, after)]
