"""What every broker does. Whatever differs between two of them is no part of what Holdfast relies on."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from itertools import count
from typing import Any

import pytest
from bench import MAX_BODY, Bench, a_message
from waiting import Arrivals, eventually

from holdfast.broker import Binding, Broker, Depth, Exchange, Held, Queue, Topology, ladder, matches
from holdfast.events import (
    Message,
    PublishError,
    PublishRefused,
    QueueInUse,
    TooLarge,
    TopologyDrift,
    TopologyMissing,
    Unroutable,
)
from holdfast.telemetry import Attached, Connected, Detached


def depth_of(bench: Bench, queue: str) -> Callable[[], Awaitable[int]]:
    return lambda: bench.server.depth(queue)


# Publishing


async def test_a_routed_publish_is_in_the_queue_when_it_returns(bench: Bench, broker: Broker) -> None:
    queue = await bench.queue("work")

    await broker.publish(a_message(b"one", routing_key=queue), timeout=10)

    await eventually(depth_of(bench, queue), 1)


async def test_a_publish_without_a_time_limit_is_confirmed_too(bench: Bench, broker: Broker) -> None:
    queue = await bench.queue("work")

    await broker.publish(a_message(b"one", routing_key=queue), timeout=None)

    await eventually(depth_of(bench, queue), 1)


async def test_an_unroutable_publish_names_exchange_and_key(bench: Bench, broker: Broker) -> None:
    exchange = bench.name("exchange")
    await bench.declare(Topology(exchanges=(Exchange(exchange),)))

    with pytest.raises(Unroutable) as unroutable:
        await broker.publish(a_message(exchange=exchange, routing_key="nobody.listens"), timeout=10)

    assert exchange in str(unroutable.value)
    assert "nobody.listens" in str(unroutable.value)


async def test_a_missing_exchange_is_told_and_disturbs_no_other_publish(bench: Bench, broker: Broker) -> None:
    queue, missing = await bench.queue("work"), bench.name("missing")
    messages = [a_message(str(n).encode(), routing_key=queue) for n in range(50)]
    messages.insert(25, a_message(exchange=missing, routing_key="any"))

    results = await asyncio.gather(*(broker.publish(m, timeout=10) for m in messages), return_exceptions=True)

    error = results.pop(25)
    assert isinstance(error, Unroutable)
    assert missing in str(error)
    assert "does not exist" in str(error)
    assert results == [None] * 50
    await eventually(depth_of(bench, queue), 50)


async def test_each_of_many_publishes_in_flight_gets_its_own_result(bench: Bench, broker: Broker) -> None:
    queue, nowhere = await bench.queue("work"), bench.name("nowhere")
    messages = [a_message(str(n).encode(), routing_key=nowhere if n % 7 == 3 else queue) for n in range(300)]

    results = await asyncio.gather(*(broker.publish(m, timeout=20) for m in messages), return_exceptions=True)

    assert [type(result) for result in results] == [
        Unroutable if message.routing_key == nowhere else type(None) for message in messages
    ]
    _, inbox = await bench.consume(queue, prefetch=300)
    arrived = {delivery.message.body for delivery in await inbox.take(sum(result is None for result in results))}
    assert arrived == {message.body for message in messages if message.routing_key == queue}


@pytest.mark.parametrize(
    "too_large",
    [
        {"body": bytes(MAX_BODY + 1)},
        {"headers": {"note": "x" * 131_072}},
        {"headers": {f"note-{n}": "x" * 1000 for n in range(140)}},
        {"routing_key": "k" * 256},
    ],
    ids=["body", "header", "headers", "routing key"],
)
async def test_what_is_too_large_is_refused_and_the_session_goes_on(
    bench: Bench, broker: Broker, too_large: dict[str, Any]
) -> None:
    queue = await bench.queue("work")

    with pytest.raises(TooLarge):
        await broker.publish(a_message(**{"routing_key": queue, **too_large}), timeout=10)

    await bench.publish(b"next", to=queue)
    await eventually(depth_of(bench, queue), 1)


async def test_headers_within_the_budget_and_a_large_body_pass(bench: Bench, broker: Broker) -> None:
    queue = await bench.queue("work")
    headers = {"note": "x" * (broker.header_budget - 100)}

    await broker.publish(a_message(b"x" * 1_048_576, routing_key=queue, headers=headers), timeout=10)

    _, inbox = await bench.consume(queue)
    arrived = (await inbox.next()).message
    assert len(arrived.body) == 1_048_576
    assert arrived.headers == headers


@pytest.mark.parametrize(
    "unfit",
    [
        {"headers": {"unfit": object()}},
        {"headers": {"unfit": 2**63}},
        {"headers": {"unfit": "\udc80"}},
        {"headers": {"unfit": [{"\udc80": 1}]}},
        {"headers": {"unfit": Decimal(2**31)}},
        {"headers": {"unfit": Decimal("NaN")}},
        {"headers": {"unfit": datetime(1969, 1, 1, tzinfo=UTC)}},
        {"headers": {"unfit": {1: "a key that is no text"}}},
        {"headers": {"unfit": {"k" * 129: "a long key"}}},
        {"headers": {"u" * 129: "a long name"}},
        {"correlation_id": "c" * 256},
        {"correlation_id": "\udc80"},
        {"type": "é" * 128},
        {"priority": 256},
        {"timestamp": datetime(1969, 1, 1, tzinfo=UTC)},
    ],
    ids=[
        "object",
        "65 bits",
        "surrogate",
        "nested surrogate",
        "decimal",
        "not a number",
        "before 1970",
        "number as key",
        "long nested key",
        "long name",
        "long property",
        "surrogate in property",
        "255 bytes",
        "priority",
        "timestamp before 1970",
    ],
)
async def test_what_has_no_form_on_the_wire_is_refused_and_the_session_goes_on(
    bench: Bench, broker: Broker, unfit: dict[str, Any]
) -> None:
    queue = await bench.queue("work")

    with pytest.raises(PublishError):
        await broker.publish(a_message(routing_key=queue, **unfit), timeout=10)

    await bench.publish(b"next", to=queue)
    await eventually(depth_of(bench, queue), 1)


async def test_further_routing_keys_that_are_no_list_are_refused_at_once(bench: Bench, broker: Broker) -> None:
    queue = await bench.queue("work")

    with pytest.raises(PublishError, match="'CC'"):
        await broker.publish(a_message(routing_key=queue, headers={"CC": "other"}), timeout=10)


async def test_a_full_queue_refuses(bench: Bench, broker: Broker) -> None:
    queue = await bench.queue("full", x_max_length=2, x_overflow="reject-publish")
    await bench.publish(b"1", b"2", to=queue)

    with pytest.raises(PublishRefused, match=queue):
        await broker.publish(a_message(b"3", routing_key=queue), timeout=10)

    assert await bench.server.depth(queue) == 2


# What a message carries


HEADERS: dict[str, Any] = {
    "nothing": None,
    "true": True,
    "false": False,
    "byte": -128,
    "short": 32_767,
    "unsigned short": 65_535,
    "long": -(2**31),
    "unsigned long": 2**32 - 1,
    "long long": -(2**63),
    "float": 1.5,
    "double": 0.1,
    "large": -1e300,
    "decimal": Decimal("-12.34"),
    "text": "é 😀 \x00\n",
    "empty text": "",
    "bytes": b"\x00\xff",
    "time": datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC),
    "array": [1, "two", None, [3.5], {"four": [True]}],
    "tuple": (1, 2),
    "empty array": [],
    "table": {"a": {"b": {"c": b"d"}}, "time": datetime(2024, 5, 6, tzinfo=UTC)},
    "empty table": {},
}


async def test_header_values_of_every_type_come_back_equal(bench: Bench, broker: Broker) -> None:
    queue = await bench.queue("work")

    await broker.publish(a_message(routing_key=queue, headers=HEADERS), timeout=10)

    _, inbox = await bench.consume(queue)
    headers = (await inbox.next()).message.headers
    assert headers == {**HEADERS, "tuple": [1, 2]}
    assert {name: type(value) for name, value in headers.items()} == {
        **{name: type(value) for name, value in HEADERS.items()},
        "tuple": list,
        "bytes": bytearray,
    }


async def test_what_was_received_can_be_published_again(bench: Bench, broker: Broker) -> None:
    queue, again = await bench.queue("work"), await bench.queue("again")
    await broker.publish(a_message(routing_key=queue, headers=HEADERS), timeout=10)
    _, inbox = await bench.consume(queue)
    first = (await inbox.next()).message

    await broker.publish(a_message(routing_key=again, headers=first.headers), timeout=10)

    _, inbox = await bench.consume(again)
    assert (await inbox.next()).message.headers == first.headers


async def test_a_time_keeps_its_seconds_in_utc(bench: Bench, broker: Broker) -> None:
    queue = await bench.queue("work")
    time = datetime.fromisoformat("2024-05-06T09:08:09.999999+02:00")

    await broker.publish(a_message(routing_key=queue, timestamp=time, headers={"time": time}), timeout=10)

    _, inbox = await bench.consume(queue)
    message = (await inbox.next()).message
    assert message.timestamp == message.headers["time"] == datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)


async def test_every_property_comes_back_equal(bench: Bench, broker: Broker) -> None:
    queue = await bench.queue("work")
    message = Message(
        body=bytes(range(256)),
        routing_key=queue,
        message_id="m-1",
        type="order.created",
        content_type="application/json",
        content_encoding="utf-8",
        correlation_id="c-1",
        timestamp=datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC),
        app_id="shop",
        priority=3,
        reply_to="answers",
    )

    await broker.publish(message, timeout=10)

    _, inbox = await bench.consume(queue)
    assert (await inbox.next()).message == message


async def test_what_was_not_given_comes_back_as_none(bench: Bench, broker: Broker) -> None:
    queue = await bench.queue("work")
    message = Message(body=b"", routing_key=queue, message_id="m-1")

    await broker.publish(message, timeout=10)

    _, inbox = await bench.consume(queue)
    assert (await inbox.next()).message == message


# Routing


async def test_a_topic_exchange_routes_by_pattern_and_each_queue_gets_one_copy(bench: Bench, broker: Broker) -> None:
    exchange, orders, everything = bench.name("events"), bench.name("orders"), bench.name("everything")
    await bench.declare(
        Topology(
            (Exchange(exchange),),
            (Queue(orders), Queue(everything)),
            (
                Binding(exchange, orders, "order.*"),
                Binding(exchange, orders, "order.created"),
                Binding(exchange, everything, "#"),
            ),
        )
    )

    for key in ("order.created", "order.created.late", "payment"):
        await broker.publish(a_message(exchange=exchange, routing_key=key), timeout=10)

    await eventually(depth_of(bench, orders), 1)
    await eventually(depth_of(bench, everything), 3)
    _, inbox = await bench.consume(orders)
    message = (await inbox.next()).message
    assert (message.exchange, message.routing_key) == (exchange, "order.created")


async def test_patterns_mean_to_the_broker_what_they_mean_to_us(bench: Bench, broker: Broker) -> None:
    patterns = ("", "#", "*", "a", "a.*", "a.#", "*.b", "#.b", "a.#.b", "#.#", "*.#.*", "a.b")
    keys = ("", "a", "b", "a.b", "a.c.b", "a.b.c", ".b", "a.")
    exchange, queues = bench.name("events"), {pattern: bench.name(f"pattern-{n}") for n, pattern in enumerate(patterns)}
    await bench.declare(
        Topology(
            (Exchange(exchange),),
            tuple(Queue(queue) for queue in queues.values()),
            tuple(Binding(exchange, queue, pattern) for pattern, queue in queues.items()),
        )
    )

    for key in keys:
        await broker.publish(a_message(key.encode(), exchange=exchange, routing_key=key), timeout=10)

    for pattern, queue in queues.items():
        expected = [key for key in keys if matches(pattern, key)]
        await eventually(depth_of(bench, queue), len(expected))
        _, inbox = await bench.consume(queue)
        assert [delivery.message.routing_key for delivery in await inbox.take(len(expected))] == expected


async def test_a_direct_exchange_routes_by_the_whole_key(bench: Bench, broker: Broker) -> None:
    exchange, queue = bench.name("direct"), bench.name("work")
    binding = Binding(exchange, queue, "a.*")
    await bench.declare(Topology((Exchange(exchange, "direct"),), (Queue(queue),), (binding,)))

    await broker.publish(a_message(exchange=exchange, routing_key="a.*"), timeout=10)

    with pytest.raises(Unroutable):
        await broker.publish(a_message(exchange=exchange, routing_key="a.b"), timeout=10)
    await eventually(depth_of(bench, queue), 1)


async def test_exchanges_bound_to_exchanges_and_alternates_lead_on(bench: Bench, broker: Broker) -> None:
    first, second, spare = bench.name("first"), bench.name("second"), bench.name("spare")
    matched, rest = bench.name("matched"), bench.name("rest")
    await bench.declare(
        Topology(
            (Exchange(spare, "fanout"), Exchange(first, "topic", {"alternate-exchange": spare}), Exchange(second)),
            (Queue(matched), Queue(rest)),
            (
                Binding(first, second, "a.#", to_exchange=True),
                Binding(second, matched, "*.b"),
                Binding(spare, rest, ""),
            ),
        )
    )

    for key in ("a.b", "c"):
        await broker.publish(a_message(key.encode(), exchange=first, routing_key=key), timeout=10)
    with pytest.raises(Unroutable):  # the first exchange found a way, so its alternate is not asked
        await broker.publish(a_message(exchange=first, routing_key="a.c"), timeout=10)

    await eventually(depth_of(bench, matched), 1)
    await eventually(depth_of(bench, rest), 1)


# Consuming


async def test_deliveries_come_in_order(bench: Bench) -> None:
    queue = await bench.queue("work")
    await bench.publish(b"1", b"2", b"3", to=queue)

    _, inbox = await bench.consume(queue)

    deliveries = await inbox.take(3)
    assert [delivery.message.body for delivery in deliveries] == [b"1", b"2", b"3"]
    assert {(delivery.queue, delivery.redelivered) for delivery in deliveries} == {(queue, False)}


async def test_no_more_than_the_prefetch_is_unsettled(bench: Bench) -> None:
    queue = await bench.queue("work")
    await bench.publish(b"1", b"2", b"3", b"4", b"5", to=queue)

    consumer, inbox = await bench.consume(queue, prefetch=2)

    first, _ = await inbox.take(2)
    await eventually(depth_of(bench, queue), 3)
    assert inbox.waiting == 0
    await consumer.ack(first)
    assert (await inbox.next()).message.body == b"3"
    await eventually(depth_of(bench, queue), 2)
    assert inbox.waiting == 0


async def test_consumers_of_a_queue_take_turns(bench: Bench) -> None:
    queue = await bench.queue("work")
    one, ones = await bench.consume(queue, prefetch=2)
    two, twos = await bench.consume(queue, prefetch=2, by=await bench.open())
    await bench.facts.first(lambda fact: isinstance(fact, Attached) and two.attached and one.attached)

    await bench.publish(b"1", b"2", b"3", b"4", to=queue)

    bodies = [delivery.message.body for delivery in await ones.take(2) + await twos.take(2)]
    assert sorted(bodies) == [b"1", b"2", b"3", b"4"]


async def test_an_acked_message_is_gone(bench: Bench) -> None:
    queue = await bench.queue("work")
    await bench.publish(b"1", to=queue)
    consumer, inbox = await bench.consume(queue)

    settled = await consumer.ack(await inbox.next())

    assert settled
    await consumer.stop(close=True)
    assert await bench.server.depth(queue) == 0


@pytest.mark.parametrize("kind", ["classic", "quorum"])
async def test_what_is_given_back_comes_again_and_flagged(bench: Bench, kind: str) -> None:
    queue = await bench.queue("work", kind)
    await bench.publish(b"1", to=queue)
    consumer, inbox = await bench.consume(queue)
    first = await inbox.next()

    settled = await consumer.give_back(first)

    again = await inbox.next()
    assert settled
    assert (again.message.body, first.redelivered, again.redelivered) == (b"1", False, True)


async def test_what_is_given_back_keeps_its_place(bench: Bench) -> None:
    # A quorum queue may hand out the next message while it writes down the return: then this holds for the rest only.
    queue = await bench.queue("work")
    await bench.publish(b"1", b"2", b"3", to=queue)
    consumer, inbox = await bench.consume(queue, prefetch=1)

    await consumer.give_back(await inbox.next())

    for body in (b"1", b"2", b"3"):
        delivery = await inbox.next()
        assert delivery.message.body == body
        await consumer.ack(delivery)


async def test_a_quorum_queue_counts_deliveries(bench: Bench) -> None:
    queue = await bench.queue("work", "quorum")
    await bench.publish(b"1", to=queue)
    consumer, inbox = await bench.consume(queue)

    await consumer.give_back(await inbox.next())

    assert (await inbox.next()).message.headers["x-delivery-count"] == 1


async def test_a_delivery_of_a_lost_connection_is_stale_and_comes_again(bench: Bench, broker: Broker) -> None:
    queue = await bench.queue("work")
    await bench.publish(b"1", b"2", to=queue)
    consumer, inbox = await bench.consume(queue)
    first, second = await inbox.take(2)
    assert consumer.is_current(first)
    await consumer.ack(second)
    await eventually(depth_of(bench, queue), 0)

    bench.server.lose_connection(broker)

    again = await inbox.next()
    assert not consumer.is_current(first)
    assert not await consumer.ack(first)
    assert not await consumer.give_back(first)
    assert (again.message.body, again.redelivered) == (b"1", True)
    assert again.generation > first.generation
    assert consumer.is_current(again)
    assert await consumer.ack(again)
    await consumer.stop(close=True)


async def test_after_a_lost_connection_publishing_goes_on(bench: Bench, broker: Broker) -> None:
    queue = await bench.queue("work")
    await bench.publish(b"1", to=queue)

    bench.server.lose_connection(broker)

    await bench.publish(b"2", to=queue)
    await eventually(depth_of(bench, queue), 2)


# Stopping


async def test_stopping_in_two_steps_keeps_acks_and_returns_the_rest(bench: Bench) -> None:
    queue = await bench.queue("work")
    bodies = [str(n).encode() for n in range(10)]
    await bench.publish(*bodies, to=queue)
    consumer, inbox = await bench.consume(queue, prefetch=10)
    deliveries = await inbox.take(10)

    await consumer.stop(close=False)
    assert not consumer.attached
    await bench.publish(b"late", to=queue)
    settled = [await consumer.ack(delivery) for delivery in deliveries[::2]]
    await consumer.stop(close=True)

    assert settled == [True] * 5
    assert not await consumer.ack(deliveries[1])
    await eventually(depth_of(bench, queue), 6)
    assert inbox.waiting == 0
    _, second = await bench.consume(queue)
    arrived = await second.take(6)
    assert [(delivery.message.body, delivery.redelivered) for delivery in arrived] == [
        *((body, True) for body in bodies[1::2]),
        (b"late", False),
    ]


@pytest.mark.parametrize("kind", ["classic", "quorum"])
async def test_however_much_is_acked_at_the_last_moment_none_of_it_comes_back(bench: Bench, kind: str) -> None:
    queue = await bench.queue("work", kind)
    await bench.publish(*[b"acked", b"kept"] * 100, to=queue)
    consumer, inbox = await bench.consume(queue, prefetch=200)
    deliveries = await inbox.take(200)

    await consumer.stop(close=False)
    for delivery in deliveries[::2]:
        await consumer.ack(delivery)
    await consumer.stop(close=True)

    _, second = await bench.consume(queue, prefetch=200)
    assert [delivery.message.body for delivery in await second.take(100)] == [b"kept"] * 100


async def test_closing_a_broker_returns_what_was_not_settled(bench: Bench) -> None:
    queue, leaving = await bench.queue("work"), await bench.open()
    await bench.publish(b"1", b"2", to=queue)
    consumer, inbox = await bench.consume(queue, by=leaving)
    first, _ = await inbox.take(2)
    await consumer.ack(first)

    await leaving.close()

    await eventually(depth_of(bench, queue), 1)


# Dead-lettering


async def test_past_the_delivery_limit_a_message_is_dead_lettered(bench: Bench) -> None:
    dead = await bench.queue("dead", "quorum")
    to_dead = {"x_dead_letter_exchange": "", "x_dead_letter_routing_key": dead}
    queue = await bench.queue("work", "quorum", x_delivery_limit=2, **to_dead)
    await bench.publish(b"poison", to=queue)
    consumer, inbox = await bench.consume(queue)

    for _ in range(3):
        await consumer.give_back(await inbox.next())

    _, corpses = await bench.consume(dead)
    message = (await corpses.next()).message
    assert (message.body, message.routing_key) == (b"poison", dead)
    death = message.headers["x-death"][0]
    assert (death["reason"], death["queue"], death["count"]) == ("delivery_limit", queue, 1)
    assert inbox.waiting == 0


@pytest.mark.parametrize("kind", ["classic", "quorum"])
async def test_what_outlives_its_time_is_dead_lettered_under_its_own_key(bench: Bench, kind: str) -> None:
    entrance, exit_, resting, target = (bench.name(word) for word in ("entrance", "exit", "resting", "target"))
    rest = {"x-queue-type": kind, "x-message-ttl": 200, "x-dead-letter-exchange": exit_}
    await bench.declare(
        Topology(
            (Exchange(entrance), Exchange(exit_)),
            (Queue(resting, rest), Queue(target)),
            (Binding(entrance, resting, "#"), Binding(exit_, target, "a.key")),
        )
    )
    _, inbox = await bench.consume(target)
    loop = asyncio.get_running_loop()
    since = loop.time()

    await bench.broker.publish(a_message(b"1", exchange=entrance, routing_key="a.key", headers={"own": 1}), timeout=10)

    message = (await inbox.next()).message
    assert loop.time() - since >= 0.199
    assert (message.body, message.exchange, message.routing_key) == (b"1", exit_, "a.key")
    (death,) = message.headers["x-death"]
    assert message.headers["own"] == 1
    assert isinstance(death["time"], datetime)
    assert {name: value for name, value in death.items() if name != "time"} == {
        "reason": "expired",
        "queue": resting,
        "count": 1,
        "exchange": entrance,
        "routing-keys": ["a.key"],
    }


# The delay ladder


async def a_laddered_queue(bench: Bench, word: str, *events: str) -> str:
    name = bench.name(word)
    await bench.declare(ladder.ladder(2.0) + Topology(queues=(Queue(name),)) + ladder.arrivals(name, events))
    return name


@pytest.mark.parametrize("delay", [0.1, 0.3, 0.6])
async def test_the_ladder_brings_a_copy_to_one_queue_and_not_too_early(
    bench: Bench, broker: Broker, delay: float
) -> None:
    queue, other = await a_laddered_queue(bench, "work"), await a_laddered_queue(bench, "other")
    _, inbox = await bench.consume(queue)
    loop = asyncio.get_running_loop()
    since = loop.time()

    await delayed(broker, a_message(b"later"), delay, ladder.to_queue(queue))

    assert (await inbox.next()).message.body == b"later"
    assert loop.time() - since >= delay - 0.001
    assert await bench.server.depth(other) == 0


async def test_the_ladder_brings_a_delayed_event_to_every_listener(bench: Bench, broker: Broker) -> None:
    event = bench.name("order.created")
    inboxes = [(await bench.consume(await a_laddered_queue(bench, word, event)))[1] for word in ("mail", "billing")]

    await delayed(broker, a_message(b"later"), 0.3, ladder.to_listeners(event))

    for inbox in inboxes:
        assert (await inbox.next()).message.body == b"later"


async def test_a_headers_exchange_hands_on_what_has_all_headers_of_a_binding(bench: Bench, broker: Broker) -> None:
    source, onward, red, both = (bench.name(word) for word in ("source", "onward", "red", "both"))
    bindings = (
        Binding(source, red, "", headers=(("colour", "red"),)),
        Binding(source, onward, "", to_exchange=True, headers=(("colour", "red"), ("size", "large"))),
        Binding(onward, both, "#"),
    )
    await bench.declare(Topology((Exchange(source, "headers"), Exchange(onward)), (Queue(red), Queue(both)), bindings))
    inboxes = [(await bench.consume(queue))[1] for queue in (red, both)]

    for size in ("small", "large"):
        headers = {"colour": "red", "size": size, "more": 1}
        await broker.publish(a_message(size.encode(), exchange=source, routing_key="k", headers=headers), timeout=10)
    with pytest.raises(Unroutable):
        await broker.publish(a_message(exchange=source, routing_key="k", headers={"size": "large"}), timeout=10)

    assert [(await inboxes[0].next()).message.body for _ in range(2)] == [b"small", b"large"]
    assert (await inboxes[1].next()).message.body == b"large"


async def test_a_copy_that_an_earlier_release_delayed_arrives(bench: Bench, broker: Broker) -> None:
    queue, lowest = await a_laddered_queue(bench, "work"), "holdfast.delay.00"
    rest = {
        "x-queue-type": "quorum",
        "x-message-ttl": 100,
        "x-dead-letter-exchange": ladder.OUT,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }
    binding = Binding(lowest, lowest, "*." * 27 + "1.#")
    await bench.declare(Topology((Exchange(lowest),), (Queue(lowest, rest),), (binding,)))
    _, inbox = await bench.consume(queue)

    key = "0." * 27 + f"1.queue.{queue}"
    await broker.publish(a_message(b"old", exchange=lowest, routing_key=key), timeout=10)

    assert (await inbox.next()).message.body == b"old"


async def test_a_listener_of_an_earlier_release_receives_a_delayed_event(bench: Bench, broker: Broker) -> None:
    queue, event = bench.name("listener"), bench.name("order.created")
    binding = Binding(ladder.OUT, queue, "*." * 28 + f"event.{event}")
    await bench.declare(ladder.ladder(2.0) + Topology(queues=(Queue(queue),), bindings=(binding,)))
    _, inbox = await bench.consume(queue)

    await delayed(broker, a_message(b"new"), 0.5, ladder.to_listeners(event))

    assert (await inbox.next()).message.body == b"new"


async def test_what_finds_no_queue_rests_as_unrouted_and_stops_nobody(bench: Bench, broker: Broker) -> None:
    queue = await a_laddered_queue(bench, "work")
    _, inbox = await bench.consume(queue)
    rest, unrouted = await bench.consume(ladder.UNROUTED, prefetch=100)
    lost = [a_message(b"lost", message_id=f"{queue}-{n}") for n in range(40)]

    await asyncio.gather(*(delayed(broker, message, 0.1, ladder.to_queue(bench.name("gone"))) for message in lost))
    await delayed(broker, a_message(b"kept"), 0.1, ladder.to_queue(queue))

    assert (await inbox.next()).message.body == b"kept"
    wanted = {message.message_id for message in lost}
    while wanted:
        delivery = await unrouted.next()
        wanted.discard(delivery.message.message_id)
        await rest.ack(delivery)


async def delayed(broker: Broker, message: Message, delay: float, target: str) -> None:
    exchange, key, levels = ladder.address(delay, target)
    carried = Message(message.body, exchange, key, {**message.headers, **levels}, message.message_id)
    await broker.publish(carried, timeout=10)


# Topology


def a_topology(bench: Bench, **arguments: Any) -> Topology:
    exchange, queue = bench.name("events"), bench.name("work")
    declared = Queue(queue, {key.replace("_", "-"): value for key, value in arguments.items()})
    return Topology((Exchange(exchange),), (declared,), (Binding(exchange, queue, "#"),))


async def test_declaring_twice_changes_nothing(bench: Bench, broker: Broker) -> None:
    topology = a_topology(bench)
    await bench.declare(topology)
    await broker.publish(a_message(exchange=topology.exchanges[0].name, routing_key="any"), timeout=10)

    await broker.declare(topology)

    await eventually(depth_of(bench, topology.queues[0].name), 1)


async def test_drift_names_queue_argument_and_both_values(bench: Bench, broker: Broker) -> None:
    await bench.declare(a_topology(bench, x_message_ttl=1000))

    with pytest.raises(TopologyDrift) as drift:
        await broker.declare(a_topology(bench, x_message_ttl=2000))

    for part in (bench.name("work"), "x-message-ttl", "1000", "2000"):
        assert part in str(drift.value)


async def test_an_exchange_of_another_type_is_drift(bench: Bench, broker: Broker) -> None:
    name = bench.name("events")
    await bench.declare(Topology((Exchange(name, "topic"),)))

    with pytest.raises(TopologyDrift) as drift:
        await broker.declare(Topology((Exchange(name, "fanout"),)))

    for part in (name, "topic", "fanout"):
        assert part in str(drift.value)


async def test_after_drift_the_session_goes_on(bench: Bench, broker: Broker) -> None:
    await bench.declare(a_topology(bench, x_message_ttl=60_000))
    with pytest.raises(TopologyDrift):
        await broker.declare(a_topology(bench, x_message_ttl=2000))

    await bench.publish(b"1", to=bench.name("work"))

    await eventually(depth_of(bench, bench.name("work")), 1)


async def test_verifying_what_is_there_passes(bench: Bench) -> None:
    topology = a_topology(bench)
    await bench.declare(topology)

    await (await bench.open()).declare(topology, "verify")


@pytest.mark.parametrize("missing", ["queue", "exchange"])
async def test_verifying_names_what_is_missing_and_makes_nothing(bench: Bench, broker: Broker, missing: str) -> None:
    name = bench.name("missing")
    topology = Topology((Exchange(name),)) if missing == "exchange" else Topology(queues=(Queue(name),))

    with pytest.raises(TopologyMissing, match=f"{missing} '{name}'"):
        await broker.declare(topology, "verify")

    with pytest.raises(TopologyMissing, match=name):
        await broker.declare(topology, "verify")


async def test_skipping_asks_and_makes_nothing(bench: Bench, broker: Broker) -> None:
    topology = a_topology(bench)

    await broker.declare(topology, "skip")

    with pytest.raises(TopologyMissing):
        await broker.declare(topology, "verify")


async def test_a_binding_to_nothing_is_told(bench: Bench, broker: Broker) -> None:
    name = bench.name("missing")

    with pytest.raises(TopologyMissing, match=name):
        await broker.declare(Topology(bindings=(Binding("amq.topic", name, "#"),)))


async def test_a_deleted_queue_is_declared_and_consumed_again(bench: Bench) -> None:
    queue = await bench.queue("work")
    await bench.publish(b"1", to=queue)
    consumer, inbox = await bench.consume(queue)
    held = await inbox.next()

    await bench.server.delete_queue(queue)

    await bench.facts.first(lambda fact: isinstance(fact, Detached) and fact.queue == queue)
    assert not await consumer.ack(held)
    again = await bench.facts.first(lambda fact: isinstance(fact, Attached) and fact.generation > held.generation)
    assert isinstance(again, Attached)
    assert again.queue == queue
    assert consumer.attached
    await bench.publish(b"2", to=queue)
    assert (await inbox.next()).message.body == b"2"


async def test_a_consumer_waits_for_a_queue_that_does_not_exist_yet(bench: Bench) -> None:
    name = bench.name("late")
    consumer, inbox = await bench.consume(name)
    await bench.facts.first(lambda fact: isinstance(fact, Detached) and fact.queue == name)
    assert not consumer.attached

    await bench.queue("late")

    await bench.publish(b"1", to=name)
    assert (await inbox.next()).message.body == b"1"
    await bench.facts.first(lambda fact: isinstance(fact, Attached) and fact.queue == name)
    assert consumer.attached


async def test_what_was_connected_is_told_for_both_roles(bench: Bench) -> None:
    queue = await bench.queue("work")
    await bench.consume(queue)
    await bench.facts.first(lambda fact: isinstance(fact, Attached) and fact.queue == queue)

    roles = {fact.role for fact in bench.facts.all if isinstance(fact, Connected)}

    assert roles == {"consume", "publish"}


# Reading without taking


async def read(broker: Broker, queue: str) -> list[bytes]:
    """The bodies in a queue, in order; they stay there."""
    held: list[Held] = []
    browser = await broker.browse(queue, held.append)
    await browser.caught_up()
    await browser.close()
    return [one.message.body for one in held]


BODIES = [str(n).encode() for n in range(200)]


@pytest.mark.parametrize("kind", ["classic", "quorum"])
async def test_reading_a_queue_leaves_it_as_it_was_however_often(bench: Bench, broker: Broker, kind: str) -> None:
    queue = await bench.queue("rest", kind)
    await bench.publish(*BODIES, to=queue)

    readings = [await read(broker, queue) for _ in range(3)]

    assert readings == [BODIES] * 3
    assert await broker.count(queue) == Depth(200, 0)


@pytest.mark.parametrize("kind", ["classic", "quorum"])
async def test_a_reader_that_is_cut_off_leaves_the_queue_as_it_was(bench: Bench, broker: Broker, kind: str) -> None:
    queue = await bench.queue("rest", kind)
    await bench.publish(*BODIES, to=queue)
    held: Arrivals[Held] = Arrivals()
    browser = await broker.browse(queue, held)
    await held.take(100)

    bench.server.lose_connection(broker)

    await eventually(depth_of(bench, queue), 200)
    assert not await browser.remove(held.all[0].tag)
    await browser.close()
    assert await read(broker, queue) == BODIES


async def test_nothing_is_lent_before_there_is_a_reader(bench: Bench, broker: Broker) -> None:
    queue = await bench.queue("rest")
    messages = [a_message(b"x" * 100, routing_key=queue) for _ in range(1_500)]
    await asyncio.gather(*(broker.publish(message, timeout=20) for message in messages))
    has_reader, lent = False, list[bool]()

    browser = await broker.browse(queue, lambda held: lent.append(has_reader))
    has_reader = True
    await browser.caught_up()
    await browser.close()

    assert lent == [True] * len(messages)


async def test_reading_ends_where_the_queue_ended_when_it_began(bench: Bench, broker: Broker) -> None:
    queue, empty = await bench.queue("rest", "quorum"), await bench.queue("empty")
    await bench.publish(*BODIES[:10], to=queue)

    assert await read(broker, empty) == []
    assert await read(broker, queue) == BODIES[:10]


async def test_what_is_removed_is_gone_and_the_rest_keeps_its_order(bench: Bench, broker: Broker) -> None:
    queue = await bench.queue("rest", "quorum")
    await bench.publish(*BODIES, to=queue)
    held: list[Held] = []
    browser = await broker.browse(queue, held.append)
    await browser.caught_up()

    removed = await browser.remove(*(one.tag for one in held[::3]))
    await browser.close()

    assert removed
    assert await read(broker, queue) == [body for n, body in enumerate(BODIES) if n % 3]


async def test_a_reader_says_how_often_a_message_came_back_and_leaves_it_as_it_was(
    bench: Bench, broker: Broker
) -> None:
    queue = await bench.queue("rest", "quorum")
    await broker.publish(a_message(b"one", routing_key=queue, headers={"mine": 1}), timeout=10)
    await read(broker, queue)
    held: Arrivals[Held] = Arrivals()
    browser = await broker.browse(queue, held)

    one = await held.next()

    assert (one.returns, dict(one.message.headers)) == (1, {"mine": 1})
    await browser.close()


async def test_one_reader_at_a_time(bench: Bench, broker: Broker) -> None:
    queue, another = await bench.queue("rest", "quorum"), await bench.open()
    await bench.publish(*BODIES[:3], to=queue)
    held: Arrivals[Held] = Arrivals()
    browser = await broker.browse(queue, held)

    for other in (broker, another):
        with pytest.raises(QueueInUse):
            await other.browse(queue, held)

    await browser.close()
    assert await read(another, queue) == BODIES[:3]


async def test_a_reader_that_is_cancelled_while_it_closes_lets_go_of_the_queue(bench: Bench, broker: Broker) -> None:
    queue = await bench.queue("rest", "quorum")
    await bench.publish(*BODIES[:3], to=queue)
    held: Arrivals[Held] = Arrivals()
    browser = await broker.browse(queue, held)
    await held.take(3)

    closing = asyncio.create_task(browser.close())
    asyncio.get_running_loop().call_soon(closing.cancel)
    await asyncio.wait({closing})

    assert await read(broker, queue) == BODIES[:3]


async def cut_off(bench: Bench, broker: Broker, queue: str, bodies: Iterator[bytes]) -> list[bytes]:
    """Cut a consumer off as it begins, with its first message, while more of them come. Returns what was published."""
    published, has_begun = list[bytes](), asyncio.Event()

    def cut(*_: object) -> None:
        has_begun.set()
        attaching.cancel()

    attaching = asyncio.create_task(broker.attach(queue, prefetch=200, on_taken=cut, on_lost=lambda _: None))
    while not has_begun.is_set() or len(published) < 10:
        published.append(next(bodies))
        await bench.publish(published[-1], to=queue)
    await asyncio.wait({attaching})
    if not attaching.cancelled():
        await attaching.result().close()
    return published


async def taken_off(broker: Broker, queue: str, many: int) -> list[bytes]:
    """Take so many messages off a queue. Returns their bodies, in the order in which they came."""
    came: Arrivals[tuple[bytes, int]] = Arrivals()
    attachment = await broker.attach(
        queue, prefetch=200, on_taken=lambda message, tag, _: came((message.body, tag)), on_lost=lambda _: None
    )
    bodies = await came.take(many)
    for _, tag in bodies:
        attachment.remove(tag)
    await attachment.close()
    return [body for body, _ in bodies]


async def test_a_consumer_that_is_cut_off_as_it_begins_leaves_the_order(bench: Bench, broker: Broker) -> None:
    """The next consumer is tried out on a connection of its own, to which messages are lent: they return in order."""
    queue, bodies = await bench.queue("work", "quorum"), (b"%d" % number for number in count())

    for _ in range(20):
        published = await cut_off(bench, broker, queue, bodies)

        assert await taken_off(broker, queue, len(published)) == published


async def test_a_queue_with_consumers_and_one_that_is_not_there_are_not_read(bench: Bench, broker: Broker) -> None:
    queue = await bench.queue("work")
    await bench.consume(queue)
    await bench.facts.first(lambda fact: isinstance(fact, Attached))

    with pytest.raises(QueueInUse):
        await broker.browse(queue, lambda held: None)
    with pytest.raises(TopologyMissing):
        await broker.browse(bench.name("nothing"), lambda held: None)
    assert await broker.count(bench.name("nothing")) is None


async def test_a_reader_cut_off_after_it_removed_a_message_says_that_it_may_be_back(
    bench: Bench, broker: Broker
) -> None:
    queue = await bench.queue("rest", "quorum")
    await bench.publish(*BODIES[:10], to=queue)
    held: list[Held] = []
    browser = await broker.browse(queue, held.append)
    await browser.caught_up()
    removed = await browser.remove(*(one.tag for one in held[:5]))

    bench.server.lose_connection(broker)

    assert (removed, await browser.close()) == (True, False)
