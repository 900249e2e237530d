"""Streams: each reader is given the past from an offset on, then the present, and takes nothing off."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bench import Bench, a_message

from holdfast import Settings
from holdfast.broker import Taped, delayed_to_stream, events_topology, ladder, mark, scanning
from holdfast.events import BrokerUnavailable, QueueInUse, TopologyMissing


async def a_stream(bench: Bench, count: int = 0) -> str:
    """A stream that holds the numbers below `count`."""
    stream = await bench.queue("stream", "stream", x_max_age="3600s")
    await put(bench, stream, range(count))
    return stream


async def put(bench: Bench, stream: str, numbers: range) -> None:
    await bench.publish(*(str(number).encode() for number in numbers), to=stream)


async def read(scan: Any, count: int) -> list[Taped]:
    taped = list[Taped]()
    async with asyncio.timeout(30):
        while len(taped) < count:
            taped += await scan.read(count - len(taped))
    return taped


def numbers(taped: list[Taped]) -> list[int]:
    return [int(one.message.body) for one in taped]


async def test_a_reader_is_given_the_past_and_then_the_present_in_order(bench: Bench) -> None:
    stream = await a_stream(bench, 5)

    async with scanning(bench.broker, stream, "first") as scan:
        past = await read(scan, 5)
        await put(bench, stream, range(5, 8))
        present = await read(scan, 3)

    assert numbers(past + present) == list(range(8))
    assert [one.offset for one in past + present] == list(range(8))
    assert all("x-stream-offset" not in one.message.headers for one in past)


async def test_each_reader_of_a_stream_is_given_all_of_it(bench: Bench) -> None:
    stream = await a_stream(bench, 4)

    async with scanning(bench.broker, stream, "first") as one, scanning(bench.broker, stream, "first") as other:
        both = [await read(one, 4), await read(other, 4)]
    async with scanning(bench.broker, stream, "first") as again:
        both.append(await read(again, 4))

    assert [numbers(taped) for taped in both] == [[0, 1, 2, 3]] * 3


async def test_a_reader_goes_on_at_an_offset(bench: Bench) -> None:
    stream = await a_stream(bench, 10)

    async with scanning(bench.broker, stream, 7) as scan:
        assert [(one.offset, int(one.message.body)) for one in await read(scan, 3)] == [(7, 7), (8, 8), (9, 9)]


async def test_a_reader_that_begins_next_is_given_nothing_of_the_past(bench: Bench) -> None:
    stream = await a_stream(bench, 3)

    async with scanning(bench.broker, stream, "next") as scan:
        await put(bench, stream, range(3, 5))

        assert numbers(await read(scan, 2)) == [3, 4]


async def test_a_reader_that_begins_at_a_time_misses_nothing_since(bench: Bench) -> None:
    stream = await a_stream(bench, 3)

    async with scanning(bench.broker, stream, datetime.now(UTC) - timedelta(hours=1)) as scan:
        assert numbers(await read(scan, 3)) == [0, 1, 2]


async def test_more_messages_than_a_reader_may_hold_are_all_read(bench: Bench) -> None:
    stream = await a_stream(bench)
    await asyncio.gather(*(bench.publish(str(number).encode(), to=stream) for number in range(4_500)))

    async with scanning(bench.broker, stream, "first") as scan:
        taped = await read(scan, 4_500)

    assert [one.offset for one in taped] == list(range(4_500))
    assert sorted(numbers(taped)) == list(range(4_500))


async def test_a_mark_is_behind_all_that_was_on_the_stream(bench: Bench) -> None:
    stream = await a_stream(bench, 3)

    marked = await mark(bench.broker, stream, 10)
    await put(bench, stream, range(3, 4))

    async with scanning(bench.broker, stream, "first") as scan:
        taped = await read(scan, 5)
    assert [one.message.message_id == marked for one in taped] == [False, False, False, True, False]


async def test_a_reader_whose_connection_is_lost_says_so_and_the_next_one_goes_on(bench: Bench) -> None:
    stream = await a_stream(bench, 2)

    async with scanning(bench.broker, stream, "first") as scan:
        await read(scan, 2)
        bench.server.lose_connection(bench.broker)
        with pytest.raises(BrokerUnavailable, match=f"lost while {stream} was read"):
            await read(scan, 1)
    await put(bench, stream, range(2, 4))

    async with scanning(bench.broker, stream, 2) as scan:
        assert numbers(await read(scan, 2)) == [2, 3]


async def test_a_stream_that_is_not_there_is_named(bench: Bench) -> None:
    with pytest.raises(TopologyMissing, match="missing"):
        async with scanning(bench.broker, bench.name("missing"), "first"):
            pass


async def test_a_stream_is_no_queue_of_dead_letters(bench: Bench) -> None:
    stream = await a_stream(bench, 1)

    with pytest.raises(QueueInUse, match="is a stream: letters are read from queues alone"):
        await browse(bench, stream)


async def browse(bench: Bench, queue: str) -> None:
    browser = await bench.broker.browse(queue, lambda held: None)
    try:
        await browser.caught_up()
    finally:
        await browser.close()


async def test_all_events_come_to_the_stream_delayed_ones_when_they_are_due(bench: Bench) -> None:
    given: Any = {"exchange": bench.name("events"), "stream": bench.name("tape"), "max_delay": 1}
    settings = Settings(_env_file=None, broker={"url": bench.server.url, **given}).broker  # type: ignore[call-arg]
    await bench.declare(events_topology(settings) + ladder.ladder(1) + delayed_to_stream(settings))
    exchange, key, levels = ladder.address(0.1, ladder.to_listeners("late.event"))

    await bench.broker.publish(a_message(b"2", exchange=exchange, routing_key=key, headers=levels), timeout=10)
    for number, kind in enumerate(("some.event", "another")):
        message = a_message(str(number).encode(), exchange=settings.exchange, routing_key=kind)
        await bench.broker.publish(message, timeout=10)

    async with scanning(bench.broker, settings.stream or "", "first") as scan:
        assert sorted(numbers(await read(scan, 3))) == [0, 1, 2]
