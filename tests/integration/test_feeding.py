"""A new listener gets the past, then the present: on RabbitMQ, while events are published."""

import asyncio
import json
from itertools import islice
from pathlib import Path
from typing import Any, cast

import pytest
from keeping import KeptFile
from running import a_broker, a_worker, running
from waiting import LIMIT, Arrivals, Facts

from holdfast import Context, Event, PublishRefused, Settings
from holdfast.broker import Binding, Broker, Exchange, Queue, Topology
from holdfast.consumer import topology_of
from holdfast.events import Message
from holdfast.journal import Feed
from holdfast.sql import Steps


class Placed(Event, type="feed.placed", key="order"):
    order: str
    number: int


class Other(Event, type="feed.other"):
    number: int


@pytest.fixture
def kept_settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"sql": settings.sql.model_copy(update={"keep": float("inf")})})


async def a_listener(settings: Settings) -> str:
    """Somebody listens already, so that what is published is routed. Returns the queue."""
    async with a_broker(settings) as broker:
        exchange, queue = Exchange(settings.broker.exchange), Queue(f"{settings.broker.exchange}.old")
        await broker.declare(Topology((exchange,), (queue,), (Binding(exchange.name, queue.name, "#"),)))
    return queue.name


class Interrupted(Exception):
    """Ends a feed where a process would be killed."""


class Cut(Feed):
    """A feed that dies before it notes what it has published, as often as it is told."""

    cuts = 2

    def _move(self, position: int) -> Steps[None]:
        if type(self).cuts:
            type(self).cuts -= 1
            raise Interrupted
        return super()._move(position)


async def test_a_new_listener_handles_each_event_once_while_they_are_published_and_fed(
    kept_settings: Settings, tmp_path: Path
) -> None:
    seen, facts, over = Arrivals[int](), Facts(), asyncio.Event()
    await a_listener(kept_settings)
    worker = a_worker(kept_settings, facts)

    @worker.handler(Placed)
    async def charge(event: Placed, ctx: Context) -> None:
        seen(event.number)

    async with a_broker(kept_settings) as broker:
        kept = KeptFile(tmp_path / "shop.db", kept_settings, broker)
        numbers = iter(range(100_000))

        def publish(count: int) -> None:
            kept.publish(*(Placed(order=f"o-{n % 7}", number=n) for n in islice(numbers, count)))

        async def keep_publishing() -> None:
            while not over.is_set():
                await asyncio.to_thread(publish, 20)
                kept.publish(Other(number=0))
                await kept.relay()

        for _ in range(60):
            publish(20)
        await kept.relay()
        publishing = asyncio.create_task(keep_publishing())
        await feed_until_done(worker.handlers[0], kept, broker, kept_settings)
        over.set()
        await publishing
        await kept.relay()
        [(written,)] = await kept.ask("select count(*) from holdfast_events where event_type = 'feed.placed'")

        async with running(worker):
            await seen.until_true(lambda: len(seen.all) >= written, lambda: f"{len(seen.all)} of {written}")

    assert sorted(seen.all) == list(range(written))
    assert written > 1200


async def feed_until_done(spec: Any, kept: KeptFile, broker: Broker, settings: Settings) -> None:
    while True:
        try:
            fed = await Cut(spec, kept.database, broker, settings).run(since=None)
        except Interrupted:
            continue
        assert set(fed.types) <= {"feed.placed"} and fed.position >= 1200
        return


class Unnoted:
    """A broker whose confirms come to the relay when they are let: what it sent is not noted until then."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.sent, self.let = asyncio.Event(), asyncio.Event()
        self.header_budget = broker.header_budget

    async def publish(self, message: Message, *, timeout: float | None) -> None:
        await self._broker.publish(message, timeout=timeout)
        self.sent.set()
        await self.let.wait()

    async def declare(self, *arguments: Any) -> None:
        await self._broker.declare(*arguments)


async def test_an_event_that_was_sent_before_the_binding_and_not_noted_is_fed(
    kept_settings: Settings, tmp_path: Path
) -> None:
    seen, facts = Arrivals[int](), Facts()
    other = await a_listener(kept_settings)
    worker = a_worker(kept_settings, facts)

    @worker.handler(Placed)
    async def charge(event: Placed) -> None:
        seen(event.number)

    async with a_broker(kept_settings) as broker:
        unnoted = Unnoted(broker)
        kept = KeptFile(tmp_path / "shop.db", kept_settings, cast("Broker", unnoted))
        kept.publish(Placed(order="o-1", number=1))
        relaying = asyncio.create_task(kept.relay())
        await unnoted.sent.wait()

        fed = await Feed(worker.handlers[0], kept.database, broker, kept_settings).run(since=None)
        unnoted.let.set()
        await relaying
        async with running(worker):
            await seen.take(1)
        depth = await broker.count(other)

    assert (fed.types, fed.position) == ({"feed.placed": 1}, 1)
    assert depth is not None and depth.ready == 1  # as it was published: a feed is for its listener alone
    assert seen.all == [1]


async def test_an_event_is_fed_in_the_form_in_which_it_was_sent_and_handled_once(
    kept_settings: Settings, tmp_path: Path
) -> None:
    seen, facts = Arrivals[bytes](), Facts()
    publishing = kept_settings.publisher.model_copy(update={"format": "cloudevents-structured"})
    settings = kept_settings.model_copy(update={"publisher": publishing})
    await a_listener(settings)
    worker = a_worker(settings, facts)

    @worker.handler("feed.placed")
    async def keep(event: bytes) -> None:
        seen(event)

    async with a_broker(settings) as broker:
        kept = KeptFile(tmp_path / "shop.db", settings, broker)
        kept.publish(Placed(order="o-1", number=1))
        await kept.relay()
        await broker.declare(topology_of(worker.handlers, settings.broker))
        kept.publish(Placed(order="o-2", number=2))
        await kept.relay()
        await Feed(worker.handlers[0], kept.database, broker, settings).run(since=None)
        async with running(worker):
            settled = await facts.settled(count=3)

    assert sorted(fact.outcome for fact in settled) == ["duplicate", "handled", "handled"]
    assert sorted(json.loads(body)["data"]["number"] for body in seen.all) == [1, 2]


class Electing(Unnoted):
    """A broker that refuses the first publish, as a queue does that elects its leader, and takes the next."""

    refusals = 1

    async def publish(self, message: Message, *, timeout: float | None) -> None:
        if self.refusals:
            self.refusals -= 1
            raise PublishRefused("it has no leader")
        await self._broker.publish(message, timeout=timeout)


class Crowd(Unnoted):
    """A broker that takes nothing until so many messages have come."""

    def __init__(self, broker: Broker, size: int) -> None:
        super().__init__(broker)
        self._barrier = asyncio.Barrier(size)

    async def publish(self, message: Message, *, timeout: float | None) -> None:
        async with asyncio.timeout(LIMIT):
            await self._barrier.wait()
        await self._broker.publish(message, timeout=timeout)


async def test_events_for_a_handler_that_is_not_ordered_wait_for_none_of_their_key(
    kept_settings: Settings, tmp_path: Path
) -> None:
    await a_listener(kept_settings)
    worker = a_worker(kept_settings, Facts())

    @worker.handler(Placed)
    async def charge(event: Placed) -> None: ...

    async with a_broker(kept_settings) as broker:
        kept = KeptFile(tmp_path / "shop.db", kept_settings, broker)
        kept.publish(*(Placed(order="o-1", number=n) for n in range(40)))
        await kept.relay()
        crowd = cast("Broker", Crowd(broker, 40))
        fed = await Feed(worker.handlers[0], kept.database, crowd, kept_settings).run(since=None)

    assert fed.types == {"feed.placed": 40}


async def test_events_of_a_key_come_in_order_though_one_is_refused(kept_settings: Settings, tmp_path: Path) -> None:
    seen, facts = Arrivals[tuple[str, int]](), Facts()
    await a_listener(kept_settings)
    worker = a_worker(kept_settings, facts)

    @worker.handler(Placed, ordered=True)
    async def charge(event: Placed) -> None:
        seen((event.order, event.number))

    async with a_broker(kept_settings) as broker:
        kept = KeptFile(tmp_path / "shop.db", kept_settings, broker)
        kept.publish(*(Placed(order=f"o-{n % 2}", number=n) for n in range(40)))
        await kept.relay()
        fed = await Feed(worker.handlers[0], kept.database, cast("Broker", Electing(broker)), kept_settings).run(
            since=None
        )
        async with running(worker):
            await seen.take(40)

    assert fed.types == {"feed.placed": 40}
    for n in range(2):
        assert [number for order, number in seen.all if order == f"o-{n}"] == list(range(n, 40, 2))
