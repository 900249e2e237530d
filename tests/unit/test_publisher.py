"""Publishing many events: as many tasks as there are events, one result for each, and errors as they are."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from builders import OrderCreated, some_metadata, some_settings
from calls import calls
from pydantic import ValidationError
from waiting import Arrivals

from holdfast import (
    Context,
    Event,
    Metadata,
    Publisher,
    PublishError,
    Settings,
    TooLarge,
    Unroutable,
    Worker,
    downcast,
)
from holdfast.broker import Binding, Delivery, Queue, Topology, ladder
from holdfast.broker.memory import MemoryBroker
from holdfast.events import Message, seal
from holdfast.events import headers as h
from holdfast.publisher.publisher import PIPELINE
from holdfast.telemetry import Fact, Published
from holdfast.testing import Harness, call


class Audited(Event, type="audit.written"):
    """One that nobody may listen to."""


@pytest.fixture
async def publisher() -> AsyncIterator[Publisher]:
    """A publisher of an exchange to which one queue listens."""
    settings = some_settings(broker={"url": "memory://publisher"})
    async with Publisher(settings, source="shop") as publisher:
        broker = MemoryBroker("memory://publisher")
        binding = Binding(settings.broker.exchange, "all", "#")
        await broker.declare(Topology(queues=(Queue("all"),), bindings=(binding,)) + ladder.ladder(1.0))
        yield publisher
        await broker.close()


@pytest.mark.pure
async def test_an_event_reaches_the_broker_in_ten_functions(publisher: Publisher) -> None:
    event = OrderCreated(order_id="a")
    await publisher.publish(event)

    with calls() as entered:
        await publisher.publish(event)

    before_the_broker = entered[: entered.index("broker/memory/session.py:MemoryBroker.publish")]
    assert len(before_the_broker) <= 10, before_the_broker


async def test_publish_many_starts_no_more_tasks_than_there_are_events(publisher: Publisher) -> None:
    seen: list[int] = []

    def events() -> Iterator[OrderCreated]:
        for number in range(3):
            yield OrderCreated(order_id=str(number))
        seen.append(len(asyncio.all_tasks()))

    before = len(asyncio.all_tasks())
    results = await publisher.publish_many(events())

    assert [result.key for result in results if isinstance(result, Metadata)] == ["0", "1", "2"]
    assert max(seen) - before <= 3


async def test_publish_many_takes_more_events_than_it_has_in_flight(publisher: Publisher) -> None:
    count = 2 * PIPELINE + 7

    results = await publisher.publish_many(OrderCreated(order_id=str(number)) for number in range(count))

    assert [result.key for result in results if isinstance(result, Metadata)] == [str(n) for n in range(count)]


@pytest.mark.pure
async def test_a_delayed_event_published_as_the_ladder_is_declared_disturbs_no_other(
    publisher: Publisher,
) -> None:
    event, loop, later = OrderCreated(order_id="a"), asyncio.get_running_loop(), list[asyncio.Task[Metadata]]()

    class Declaring(MemoryBroker):
        """A broker at which another event is published in the very turn in which a declaration ends."""

        async def declare(self, topology: Topology, mode: Any = "declare") -> None:
            await super().declare(topology, mode)
            if not later:
                loop.call_soon(lambda: later.append(asyncio.create_task(publisher.publish(event, delay=0.1))))

    publisher._broker = Declaring("memory://publisher")

    first = await publisher.publish(event, delay=0.1)
    second = await later[0]
    await publisher._broker.close()

    assert first.event_id != second.event_id


async def test_delayed_events_that_are_published_together_declare_the_ladder_once(publisher: Publisher) -> None:
    with calls() as entered:
        results = await publisher.publish_many([OrderCreated(order_id=str(n)) for n in range(50)], delay=0.1)

    assert all(isinstance(result, Metadata) for result in results)
    assert entered.count("broker/memory/server.py:Server.declare") == 1


async def test_publish_many_of_nothing_returns_nothing(publisher: Publisher) -> None:
    assert await publisher.publish_many([]) == []


async def test_an_error_of_publishing_is_the_result_of_its_event(publisher: Publisher) -> None:
    huge = OrderCreated(order_id="x" * 2_000_000)

    first, second, third = await publisher.publish_many([OrderCreated(order_id="a"), huge, OrderCreated(order_id="b")])

    assert isinstance(first, Metadata) and isinstance(second, TooLarge) and isinstance(third, Metadata)


async def test_any_other_error_is_raised_as_it_is(publisher: Publisher) -> None:
    def events() -> Iterator[OrderCreated]:
        yield OrderCreated(order_id="a")
        raise LookupError("no more orders")

    with pytest.raises(LookupError, match="no more orders"):
        await publisher.publish_many(events())
    with pytest.raises(TypeError):
        await publisher.publish_many([OrderCreated(order_id="a")] * 3, delay="soon")  # type: ignore[arg-type]


@pytest.mark.parametrize("delay", [-1.0, 86_400.5, float("nan")])
async def test_a_delay_out_of_its_range_is_refused_with_the_setting_s_name(publisher: Publisher, delay: float) -> None:
    with pytest.raises(PublishError, match="HOLDFAST_BROKER__MAX_DELAY=86400"):
        await publisher.publish(OrderCreated(order_id="a"), delay=delay)


async def test_a_time_that_is_past_means_now_and_one_without_a_zone_is_refused(publisher: Publisher) -> None:
    past = datetime.now(UTC) - timedelta(hours=1)

    assert (await publisher.publish(OrderCreated(order_id="a"), at=past)).event_type == "order.created"
    with pytest.raises(PublishError, match="no time zone"):
        await publisher.publish(OrderCreated(order_id="a"), at=past.replace(tzinfo=None))
    with pytest.raises(PublishError, match="not both"):
        await publisher.publish(OrderCreated(order_id="a"), at=past, delay=1)


async def test_a_publisher_that_is_not_open_says_how_to_open_it() -> None:
    with pytest.raises(PublishError, match="async with Publisher"):
        await Publisher(some_settings()).publish(OrderCreated(order_id="a"))


async def test_a_delayed_event_says_where_it_was_published(publisher: Publisher) -> None:
    broker, arrived = MemoryBroker("memory://publisher"), asyncio.Queue[Delivery]()
    await broker.declare(Topology(queues=(Queue("late"),)) + ladder.arrivals("late", ["order.created"]))
    await broker.consume("late", prefetch=1, on_delivery=arrived.put_nowait)

    sent = await publisher.publish(OrderCreated(order_id="a"), delay=0.1)
    message = (await arrived.get()).message
    await broker.close()

    assert message.headers["event-id"] == sent.event_id
    assert (message.headers["holdfast-exchange"], message.headers["holdfast-routing-key"]) == (
        "events",
        "order.created",
    )


async def test_metadata_of_another_event_is_refused(publisher: Publisher) -> None:
    event = OrderCreated(order_id="a")

    for changes, fault in (
        ({"version": 1}, "metadata has version=1, and the event has 2"),
        (
            {"event_type": "order.cancelled"},
            "metadata has event_type='order.cancelled', and the event has 'order.created'",
        ),
        ({"event_id": ""}, "event_id='' is not a text of 1 to 255 bytes"),
    ):
        with pytest.raises(PublishError, match=fault):
            await publisher.publish(event, metadata=some_metadata(**{"version": 2, **changes}))


async def test_an_event_published_again_with_its_metadata_is_the_same_event(publisher: Publisher) -> None:
    event = OrderCreated(order_id="a")

    first = await publisher.publish(event)
    again = await publisher.publish(event, metadata=first)
    by_hand = await publisher.publish(event, metadata=some_metadata(version=2))

    assert again == first
    assert (by_hand.key, by_hand.event_id) == ("a", "e-1"), "a key that is not given is the event's own"


async def test_metadata_and_an_event_in_an_older_version_agree() -> None:
    settings = some_settings(broker={"url": "memory://older"}, publisher={"versions": {"publishing.priced": 1}})
    async with Publisher(settings) as publisher, listening("memory://older", settings) as _:
        sent = await publisher.publish(PricedV2(cents=100))
        again = await publisher.publish(PricedV2(cents=100), metadata=sent)
        with pytest.raises(PublishError, match="metadata has version=2, and the event has 1"):
            await publisher.publish(PricedV2(cents=100), metadata=replace(sent, version=2))

    assert (sent.version, again) == (1, sent)


async def test_an_event_id_and_headers_of_the_application_travel_with_the_event(publisher: Publisher) -> None:
    headers = {"tenant": "blue", "tries": 3, "ratio": 0.1, "tags": ["a", {"b": None}]}

    async with listening("memory://publisher", publisher._settings, "mine") as taken:
        sent = await publisher.publish(OrderCreated(order_id="a"), event_id="order-7", headers=headers)
        later = await publisher.publish(OrderCreated(order_id="b"), headers={"tenant": "red"}, delay=0.1)

    assert (sent.event_id, sent.correlation_id) == ("order-7", "order-7")
    [message] = [one for one in taken if one.headers[h.EVENT_ID] == "order-7"]
    assert {name: value for name, value in message.headers.items() if h.is_free(name)} == headers
    assert later.event_id != "order-7"


RESERVED = [
    *(h.EVENT_ID, h.EVENT_VERSION, h.EVENT_KEY, h.EVENT_TIME, h.CAUSATION_ID, h.CAUSED_BY, h.TRACEPARENT, h.TRACESTATE),
    *("holdfast-attempt", "holdfast-anything", "x-death", "x-delivery-count", "CC", "BCC", "", 7),
    *("cloudEvents:id", "cloudEvents_type", "ce-source"),
]


@pytest.mark.parametrize("name", RESERVED)
async def test_a_header_that_is_not_the_application_s_is_refused(publisher: Publisher, name: Any) -> None:
    with pytest.raises(PublishError, match=f"the header {name!r} is not the application's to give"):
        await publisher.publish(OrderCreated(order_id="a"), headers={name: "x"})


@pytest.mark.parametrize(
    "headers", [{"x" * 129: 1}, {"a": object()}, {"a": 2**70}, {"a": "\ud800"}, {"a": {"b": {1: 2}}}]
)
async def test_a_header_that_amqp_cannot_carry_is_refused(publisher: Publisher, headers: dict[str, Any]) -> None:
    with pytest.raises(PublishError, match=r"order\.created: header '"):
        await publisher.publish(OrderCreated(order_id="a"), headers=headers)


@pytest.mark.parametrize("event_id", ["", "x" * 256, "é" * 128, "\ud800", 7])
async def test_an_event_id_that_cannot_travel_is_refused(publisher: Publisher, event_id: Any) -> None:
    with pytest.raises(PublishError, match="is not a text of 1 to 255 bytes"):
        await publisher.publish(OrderCreated(order_id="a"), event_id=event_id)


async def test_what_says_the_same_twice_is_refused(publisher: Publisher) -> None:
    event = OrderCreated(order_id="a")

    with pytest.raises(PublishError, match="give metadata or event_id, not both"):
        await publisher.publish(event, metadata=some_metadata(version=2), event_id="e-1")
    with pytest.raises(PublishError, match="event_id= is for an event"):
        await publisher.publish(seal(event, source="s"), event_id="e-1")


async def test_a_handler_publishes_with_an_id_and_headers_and_sees_those_it_was_given() -> None:
    async def handle(event: OrderCreated, ctx: Context) -> None:
        await ctx.publish(PricedV2(cents=1), event_id="priced-1", headers=ctx.headers)
        await ctx.publish(PricedV2(cents=2))

    given = {
        "tenant": "blue",
        "x-death": [{}],
        "CC": ["x"],
        "holdfast-attempt": 1,
        "event-key": "k",
        "tracestate": "a=b",
    }
    ctx = await call(handle, OrderCreated(order_id="a"), headers=given)

    assert ctx.headers == {"tenant": "blue"}
    [first, second] = ctx.published
    assert first.metadata.event_id == "priced-1" and second.metadata.event_id != "priced-1"

    async with Harness(handling(handle)) as harness:
        await harness.publish(OrderCreated(order_id="a"), headers={"tenant": "red"}, event_id="o-1")
        await harness.settle()
    assert [run.metadata.event_id for run in harness.handled] == ["o-1"]
    assert harness.published[0].metadata.event_id == "priced-1"


async def test_a_handler_that_publishes_what_can_never_be_sent_is_told_at_once() -> None:
    async def handle(event: OrderCreated, ctx: Context) -> None:
        await ctx.publish(PricedV2(cents=1), headers={"event-id": "x"})

    with pytest.raises(PublishError, match="not the application's to give"):
        await call(handle, OrderCreated(order_id="a"))


class PricedV1(Event, type="publishing.priced", version=1):
    euros: int


class PricedV2(Event, type="publishing.priced", version=2):
    cents: int


@downcast(PricedV2, PricedV1)
def in_euros(new: PricedV2) -> PricedV1:
    return PricedV1(euros=new.cents // 100)


def handling(function: Callable[..., Any]) -> Worker:
    worker = Worker("publishing", settings=some_settings())
    worker.handler(OrderCreated)(function)
    return worker


@asynccontextmanager
async def listening(url: str, settings: Settings, queue: str = "all") -> AsyncIterator[list[Message]]:
    """What comes to a queue that listens to everything, once the block has ended."""
    broker, taken = MemoryBroker(url), Arrivals[Delivery]()
    binding = Binding(settings.broker.exchange, queue, "#")
    await broker.declare(Topology(queues=(Queue(queue),), bindings=(binding,)))
    messages: list[Message] = []
    yield messages
    await broker.consume(queue, prefetch=100, on_delivery=taken)
    messages.append((await taken.next()).message)
    await broker.close()


async def test_a_listener_that_raises_keeps_nobody_from_publishing(publisher: Publisher) -> None:
    def listen(fact: Fact) -> None:
        raise OSError("the disk is full")

    async with Publisher(some_settings(broker={"url": "memory://publisher"}), emit=listen) as another:
        metadata = await another.publish(OrderCreated(order_id="a"))

    assert metadata.event_type == OrderCreated.__event_type__


async def test_an_event_that_may_have_no_listener_is_dropped_and_counted() -> None:
    facts: list[Fact] = []
    settings = some_settings(broker={"url": "memory://unheard"}, publisher={"may_be_unrouted": ["audit.#"]})

    async with Publisher(settings, emit=facts.append) as publisher:
        metadata = await publisher.publish(Audited())
        with pytest.raises(Unroutable):
            await publisher.publish(OrderCreated(order_id="a"))

    assert metadata.event_type == "audit.written"
    published = [(fact.event_type, fact.outcome) for fact in facts if isinstance(fact, Published)]
    assert published == [("audit.written", "dropped"), ("order.created", "unroutable")]


async def test_a_delayed_event_is_never_dropped_for_want_of_a_ladder() -> None:
    settings = some_settings(
        broker={"url": "memory://no-ladder", "topology": "skip"}, publisher={"may_be_unrouted": ["#"]}
    )

    async with Publisher(settings) as publisher:
        with pytest.raises(Unroutable):
            await publisher.publish(Audited(), delay=1.0)


async def test_a_handler_publishes_an_event_that_may_have_no_listener() -> None:
    worker = Worker("w", settings=some_settings(publisher={"may_be_unrouted": ["audit.*"]}))

    @worker.handler(OrderCreated)
    async def note(event: OrderCreated, ctx: Context) -> None:
        await ctx.publish(Audited())

    async with Harness(worker) as harness:
        await harness.publish(OrderCreated(order_id="a"))
        await harness.settle()

    assert len(harness.handled) == 1


@pytest.mark.parametrize("pattern", ["", "a b", "audit.", ".a", "audit*", "audit.#x"])
def test_a_pattern_that_no_type_can_match_is_refused_as_a_setting(pattern: str) -> None:
    with pytest.raises(ValidationError, match=r"publisher\.may_be_unrouted"):
        some_settings(publisher={"may_be_unrouted": [pattern]})
