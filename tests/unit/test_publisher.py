"""Publishing many events: as many tasks as there are events, one result for each, and errors as they are."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from builders import OrderCreated, some_settings
from calls import calls

from holdfast import Metadata, Publisher, PublishError, TooLarge
from holdfast.broker import Binding, Delivery, Queue, Topology, ladder
from holdfast.broker.memory import MemoryBroker
from holdfast.publisher.publisher import PIPELINE


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
