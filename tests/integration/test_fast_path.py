"""Deliveries taken from the socket, acks and publishes written to it: nothing of what holds elsewhere is given up."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import pytest
from breaking import a_channel, delete, through, with_broker, with_worker
from proxy import Direction, Proxy, proxy_to
from running import a_broker, a_worker, depth, publish_all, running
from waiting import LIMIT, Arrivals, Facts, Tally, eventually

from holdfast import Event, Metadata, Publisher, PublishRefused, Settings, Unroutable
from holdfast.broker import Binding, Delivery, Exchange, Queue, Topology, resting_queue
from holdfast.events import Message
from holdfast.telemetry import Attached, Detached, Disconnected

_CONSUME = b"\x00\x3c\x00\x14"  # class and method


class Paid(Event, type="paid"):
    order: int
    note: str = ""


@pytest.fixture
async def proxy(settings: Settings) -> AsyncIterator[Proxy]:
    async with proxy_to(settings.broker.url.get_secret_value()) as between:
        yield between


async def test_what_is_done_behind_a_slow_head_is_acked_and_only_the_head_comes_again(
    settings: Settings, proxy: Proxy
) -> None:
    facts, go, runs = Facts(), asyncio.Event(), Tally[int]()
    worker = a_worker(with_worker(through(proxy, settings), concurrency=20), facts)

    @worker.handler(Paid, prefetch=400, idempotent=False)
    async def handle(event: Paid) -> None:
        runs[event.order] += 1
        if event.order == 0:
            await go.wait()

    async with running(worker):
        await publish_all(settings, [Paid(order=0)])
        await runs.until(lambda: runs[0] == 1)
        await publish_all(settings, [Paid(order=order) for order in range(1, 300)])
        await facts.settled("handled", count=299)
        worker.stop()
        go.set()

    again = a_worker(settings, Facts())
    again.handler(Paid, name="handle", idempotent=False)(handle)
    async with running(again):
        await publish_all(settings, [Paid(order=1000)])
        await runs.until(lambda: runs[1000] == 1)

    assert [order for order, count in runs.items() if count != 1] == []


@pytest.mark.parametrize("size", [40, 700, 1_500, 30_000, 131_100, 400_000])
async def test_a_connection_cut_within_a_frame_loses_and_repeats_nothing(
    settings: Settings, proxy: Proxy, size: int
) -> None:
    facts, runs = Facts(), Tally[int]()
    worker = a_worker(through(proxy, settings), facts)

    @worker.handler(Paid)
    async def handle(event: Paid) -> None:
        assert len(event.note) in (10, 300_000)
        runs[event.order] += 1

    async with running(worker):
        proxy.cut_after(size, Direction.TO_CLIENT)
        notes = ["x" * (300_000 if order % 5 == 0 else 10) for order in range(20)]
        await publish_all(settings, [Paid(order=order, note=note) for order, note in enumerate(notes)])
        await facts.until(Attached, count=2)
        await runs.until(lambda: len(runs) == 20)

    assert set(runs.values()) == {1}


async def test_heartbeats_hold_a_connection_in_silence_and_under_steady_traffic(settings: Settings) -> None:
    facts, runs = Facts(), Tally[int]()
    worker = a_worker(with_broker(settings, heartbeat=1), facts)
    loop = asyncio.get_running_loop()

    @worker.handler(Paid, idempotent=False)
    async def handle(event: Paid) -> None:
        runs[event.order] += 1

    async with running(worker), Publisher(settings) as publisher:
        until_then = loop.time() + 8  # aiormq ends a connection on which it saw no frame for 6 s
        while loop.time() < until_then:
            await publisher.publish(Paid(order=sum(runs.values())))
        traffic = sum(runs.values())
        silent = asyncio.Event()
        loop.call_later(4, silent.set)
        await silent.wait()
        await publisher.publish(Paid(order=-1))
        await runs.until(lambda: runs[-1] == 1)

    assert traffic and not facts.of(Disconnected) and not facts.of(Detached)


async def test_two_hundred_consumers_share_a_connection(settings: Settings) -> None:
    exchange, names = settings.broker.exchange, [f"{settings.broker.exchange}.{number}" for number in range(200)]
    queues = tuple(Queue(name, {"x-queue-type": "classic"}) for name in names)
    got, all_came = Counter[str](), asyncio.Event()

    async with a_broker(settings) as broker, asyncio.timeout(100):
        await broker.declare(
            Topology((Exchange(exchange),), queues, tuple(Binding(exchange, n, "paid") for n in names))
        )

        def on_delivery(delivery: Delivery) -> None:
            got[delivery.queue] += 1
            tasks.create_task(delivery.consumer.ack(delivery))
            if got.total() == 1000:
                all_came.set()

        async with asyncio.TaskGroup() as tasks:
            for name in names:
                await broker.consume(name, prefetch=10, on_delivery=on_delivery)
            await publish_all(settings, [Paid(order=order) for order in range(5)])
            await all_came.wait()

    assert got == Counter(dict.fromkeys(names, 5))


async def test_a_consumer_that_is_cancelled_among_busy_ones_comes_back_and_disturbs_none(settings: Settings) -> None:
    facts, runs = Facts(), Tally[tuple[str, int]]()
    worker = a_worker(settings, facts)

    def listen(name: str) -> None:
        @worker.handler(Paid, name=name)
        async def handle(event: Paid) -> None:
            runs[name, event.order] += 1

    listen("steady")
    listen("deleted")

    async with running(worker):
        await publish_all(settings, [Paid(order=order) for order in range(200)])
        await delete(settings, queues=(f"{worker.name}.deleted",))
        await facts.until(Attached, lambda fact: fact.queue.endswith(".deleted"), count=2)
        await publish_all(settings, [Paid(order=order) for order in range(200, 220)])
        await runs.until(lambda: all(runs["deleted", order] for order in range(200, 220)))
        await runs.until(lambda: all(runs["steady", order] for order in range(220)))

    assert set(runs.values()) == {1}
    assert {fact.queue for fact in facts.of(Detached)} == {f"{worker.name}.deleted"}


async def test_returns_and_nacks_among_confirms_reach_the_publishes_they_mean(settings: Settings) -> None:
    name = settings.broker.exchange
    full, open_to_all = f"{name}.full", f"{name}.open"
    limited = Queue(full, {"x-queue-type": "classic", "x-max-length": 1, "x-overflow": "reject-publish"})
    topology = Topology(
        exchanges=(Exchange(name, "topic"),),
        queues=(limited, Queue(open_to_all, {"x-queue-type": "classic"})),
        bindings=(Binding(name, full, "full"), Binding(name, open_to_all, "open")),
    )
    async with a_broker(settings) as broker:
        await broker.declare(topology)

    class Full(Event, type="full"): ...

    class Open(Event, type="open"): ...

    class Nowhere(Event, type="nowhere"): ...

    async with Publisher(settings) as publisher, asyncio.timeout(LIMIT):
        await publisher.publish(Full())
        results = await publisher.publish_many([kind() for _ in range(200) for kind in (Open, Full, Nowhere)])
    async with a_channel(settings) as channel:
        arrived = (await channel.queue_declare(open_to_all, passive=True)).message_count

    assert [type(result) for result in results] == [Metadata, PublishRefused, Unroutable] * 200
    assert arrived == 200


async def test_consumers_that_stop_while_their_connection_breaks_wait_for_no_answer(
    settings: Settings, proxy: Proxy
) -> None:
    facts, queues = Facts(), tuple(f"{settings.broker.exchange}.{number}" for number in range(20))
    async with a_broker(through(proxy, settings), facts) as broker:
        await broker.declare(Topology(queues=tuple(Queue(name, {"x-queue-type": "classic"}) for name in queues)))
        try:
            consumers = [await broker.consume(name, prefetch=1, on_delivery=_ignore) for name in queues]
            await facts.until(Attached, count=20)
            assert all(consumer.attached for consumer in consumers)
            proxy.cut()
            stops = []
            for consumer in consumers:
                stops.append(asyncio.ensure_future(consumer.stop(close=False)))
                await asyncio.sleep(0)
            done, waiting = await asyncio.wait(stops, timeout=5)  # an answer may take 10 s
        finally:
            await delete(settings, queues=queues)

    assert (len(done), len(waiting)) == (20, 0)


async def test_what_comes_for_a_consumer_that_was_given_up_holds_up_no_other(settings: Settings, proxy: Proxy) -> None:
    facts, late, other = Facts(), f"{settings.broker.exchange}.late", f"{settings.broker.exchange}.other"
    given_up, came, lost = Arrivals[Message](), Arrivals[Message](), Arrivals[str]()

    def withhold_the_answer(data: bytes, direction: Direction) -> bytes:
        if direction is Direction.TO_SERVER and _CONSUME in data:
            proxy.swallow(Direction.TO_CLIENT)
        return data

    async with a_broker(through(proxy, settings), facts) as broker:
        await broker.declare(Topology(queues=(resting_queue(late), resting_queue(other))))
        for queue in (late, other):
            await asyncio.gather(*(broker.publish(Message(b"1", "", queue), timeout=10) for _ in range(20)))
        proxy.alter = withhold_the_answer
        opening = asyncio.create_task(
            broker.attach(late, prefetch=20, on_taken=lambda message, *_: given_up(message), on_lost=lost)
        )
        await proxy.until_withheld(Direction.TO_CLIENT)
        await eventually(lambda: depth(settings, late), 0)
        opening.cancel()
        await asyncio.wait({opening})
        proxy.alter = lambda data, direction: data
        proxy.resume()

        async with asyncio.timeout(5):  # an answer may take 10 s
            attachment = await broker.attach(
                other, prefetch=20, on_taken=lambda message, *_: came(message), on_lost=lost
            )
            await came.take(20)
        await eventually(lambda: depth(settings, late), 20)
        await attachment.close()

    assert (given_up.all, lost.all, facts.of(Disconnected)) == ([], [], [])


def _ignore(delivery: Delivery) -> None:
    """Nothing comes."""
