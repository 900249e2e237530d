"""A new listener is fed from a stream: the past before its binding, each event with its own id."""

import asyncio
import gzip
from collections.abc import AsyncIterator
from typing import Any

import pytest
from running import running
from waiting import Arrivals, Facts

from holdfast import Context, Event, Ordered, Publisher, PublishRefused, Settings, Worker
from holdfast.broker import Mode, Topology, events_topology, ladder
from holdfast.broker.memory import MemoryBroker
from holdfast.consumer import HandlerSpec
from holdfast.events import Message
from holdfast.journal import TapeFeed


class Placed(Event, type="order.placed"):
    number: int
    shop: str = ""


class Other(Event, type="order.other"):
    number: int


@pytest.fixture
def settings(unique: str) -> Settings:
    broker: Any = {"url": f"memory://{unique}", "exchange": unique, "stream": f"{unique}.tape", "max_delay": 1}
    return Settings(_env_file=None, broker=broker, http={"port": 0})  # type: ignore[call-arg, arg-type]


@pytest.fixture
async def broker(settings: Settings) -> AsyncIterator[MemoryBroker]:
    broker = Busy(settings.broker.url.get_secret_value())
    await broker.declare(events_topology(settings.broker))
    yield broker
    await broker.close()


class Busy(MemoryBroker):
    """A broker on which somebody publishes just before a binding is made, and just after it."""

    around: tuple[Message, ...] = ()

    async def declare(self, topology: Topology, mode: Mode = "declare") -> None:
        around, self.around = self.around, ()
        for message in around:
            await self.publish(message, timeout=10)
        await super().declare(topology, mode)
        for message in around:
            await self.publish(message, timeout=10)


class Electing(MemoryBroker):
    """A broker that refuses the first publish to a queue, which elects its leader, and takes the next."""

    refusals = 1

    async def publish(self, message: Message, *, timeout: float | None) -> None:
        await asyncio.sleep(0)
        if message.exchange == "" and message.type == "order.placed" and self.refusals:
            self.refusals -= 1
            raise PublishRefused("it has no leader")
        await super().publish(message, timeout=timeout)


class Late:
    """A worker whose listener comes late, and what it is given."""

    def __init__(self, settings: Settings, **options: Any) -> None:
        self.seen: Arrivals[tuple[int, str]] = Arrivals()
        self.worker = Worker("late", settings=settings, listeners=[Facts().record])

        @self.worker.handler(Placed, **options)
        async def charge(event: Placed, ctx: Context) -> None:
            self.seen((event.number, ctx.metadata.event_id))

    @property
    def spec(self) -> HandlerSpec:
        return self.worker.handlers[0]

    async def handled(self, count: int) -> list[tuple[int, str]]:
        async with running(self.worker):
            return await self.seen.take(count)


async def test_the_past_is_published_to_the_new_queue_with_its_ids(settings: Settings, broker: MemoryBroker) -> None:
    late = Late(settings)
    async with Publisher(settings) as publisher:
        sent = [await publisher.publish(Placed(number=n)) for n in range(3)]
        await publisher.publish(Other(number=0))

    fed = await TapeFeed(late.spec, broker, settings).run(since=None)

    assert fed.types == {"order.placed": 3}
    assert await late.handled(3) == [(n, metadata.event_id) for n, metadata in enumerate(sent)]


async def test_an_event_around_the_binding_is_handled_and_once(settings: Settings, broker: Busy) -> None:
    late, exchange = Late(settings), settings.broker.exchange
    broker.around = (Message(b'{"number": 7}', exchange, "order.placed", message_id="m-7"),)

    fed = await TapeFeed(late.spec, broker, settings).run(since=None)
    await broker.publish(Message(b'{"number": 8}', exchange, "order.placed", message_id="m-8"), timeout=10)

    assert fed.types == {"order.placed": 2}
    assert await late.handled(2) == [(7, "m-7"), (8, "m-8")]


async def test_messages_of_other_producers_are_fed_as_they_came(settings: Settings, broker: MemoryBroker) -> None:
    late, exchange = Late(settings), settings.broker.exchange
    body = gzip.compress(b'{"number": 1}')
    await broker.publish(
        Message(body, exchange, "order.placed", {"x-own": "kept"}, message_id="m-1", content_encoding="gzip"),
        timeout=10,
    )

    await TapeFeed(late.spec, broker, settings).run(since=None)

    assert await late.handled(1) == [(1, "m-1")]


async def test_a_delayed_event_is_fed_once_it_was_due(settings: Settings, broker: MemoryBroker) -> None:
    late = Late(settings)
    async with Publisher(settings) as publisher:
        sent = await publisher.publish(Placed(number=1), delay=0.1)
    due = Arrivals[Message]()
    await broker.attach(
        settings.broker.stream or "", prefetch=10, on_taken=lambda *taken: due(taken[0]),
        on_lost=lambda reason: None, offset="first",
    )  # fmt: skip
    [message] = await due.take(1)

    fed = await TapeFeed(late.spec, broker, settings).run(since=None)

    assert message.exchange == ladder.OUT
    assert fed.types == {"order.placed": 1}
    assert await late.handled(1) == [(1, sent.event_id)]


async def test_what_would_be_fed_is_counted_and_nothing_is_bound(settings: Settings, broker: MemoryBroker) -> None:
    late = Late(settings)
    async with Publisher(settings) as publisher:
        for n in range(3):
            await publisher.publish(Placed(number=n))

    counted = await TapeFeed(late.spec, broker, settings).rehearse(since=None)
    since = await TapeFeed(late.spec, broker, settings).rehearse(since=4e9)

    assert (counted.types, since.types) == ({"order.placed": 3}, {})
    assert await broker.count(late.spec.queue) is None


async def test_events_of_a_key_are_fed_in_order_though_one_is_refused(settings: Settings, broker: MemoryBroker) -> None:
    late, electing = Late(settings, ordered=Ordered(by="shop")), Electing(settings.broker.url.get_secret_value())
    async with Publisher(settings) as publisher:
        for n in range(6):
            await publisher.publish(Placed(number=n, shop=f"s-{n % 2}"))

    fed = await TapeFeed(late.spec, electing, settings).run(since=None)
    numbers = [number for number, _ in await late.handled(6)]
    await electing.close()

    assert fed.types == {"order.placed": 6}
    assert [n for n in numbers if n % 2 == 0] == [0, 2, 4]
    assert [n for n in numbers if n % 2] == [1, 3, 5]
