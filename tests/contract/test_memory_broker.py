"""What the in-memory broker adds to the contract: the loop's own clock, sharing by URL, and faults on request."""

import asyncio
import gc
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
import virtual_time
from bench import a_message
from glass import GlassBroker
from waiting import Arrivals

from holdfast.broker import Binding, Delivery, Queue, Topology, ladder
from holdfast.broker.memory import MemoryBroker, shared
from holdfast.events import NotConnected, TooLarge, Unroutable
from holdfast.telemetry import Attached, Connected, Detached, Disconnected, Fact


@pytest.fixture
async def broker() -> AsyncIterator[GlassBroker]:
    broker = GlassBroker()
    yield broker
    await broker.close()


async def declare(broker: MemoryBroker, *names: str, **arguments: object) -> None:
    given = {key.replace("_", "-"): value for key, value in arguments.items()}
    await broker.declare(Topology(queues=tuple(Queue(name, given) for name in names)))


async def publish(broker: MemoryBroker, *bodies: bytes, to: str) -> None:
    for body in bodies:
        await broker.publish(a_message(body, routing_key=to), timeout=1)


def bodies(broker: GlassBroker, queue: str) -> list[bytes]:
    return [message.body for message in broker.messages(queue)]


# Time


@pytest.mark.parametrize("delay", [0.1, 12.7, 86_399.9])
def test_the_ladder_takes_exactly_as_long_as_asked_on_a_virtual_clock(delay: float) -> None:
    async def main() -> float:
        broker, inbox = GlassBroker(), Arrivals[Delivery]()
        await broker.declare(ladder.ladder(86_400) + Topology(queues=(Queue("work"),)) + ladder.arrivals("work"))
        await broker.consume("work", prefetch=1, on_delivery=inbox)
        since = asyncio.get_running_loop().time()
        exchange, key, levels = ladder.address(delay, ladder.to_queue("work"))
        await broker.publish(a_message(exchange=exchange, routing_key=key, headers=levels), timeout=None)
        async with asyncio.timeout(2 * delay):
            while not inbox.all:
                await asyncio.sleep(delay / 1000)
        hops = inbox.all[0].message.headers["x-death"]
        assert hops[0]["time"] - hops[-1]["time"] <= timedelta(seconds=delay)
        took = asyncio.get_running_loop().time() - since
        await broker.close()
        return took

    took = virtual_time.run(main())

    assert delay <= took <= delay * 1.002


def test_a_queue_of_mortals_needs_one_timer() -> None:
    async def main() -> int:
        broker = GlassBroker()
        await declare(broker, "dead")
        to_dead = {"x_dead_letter_exchange": "", "x_dead_letter_routing_key": "dead"}
        await declare(broker, "rest", x_message_ttl=3_600_000, **to_dead)
        for n in range(100):
            await publish(broker, str(n).encode(), to="rest")
            await asyncio.sleep(1)
        timers = len(asyncio.get_running_loop()._scheduled)  # type: ignore[attr-defined]
        await asyncio.sleep(3_600)
        assert bodies(broker, "dead") == [str(n).encode() for n in range(100)]
        await broker.close()
        return timers

    assert virtual_time.run(main()) == 1


def test_an_expired_message_is_not_delivered() -> None:
    async def main() -> None:
        broker, inbox = GlassBroker(), Arrivals[Delivery]()
        await declare(broker, "rest", x_message_ttl=1000)
        await publish(broker, b"1", to="rest")
        await asyncio.sleep(0.5)
        await publish(broker, b"2", to="rest")
        await asyncio.sleep(0.6)
        await broker.consume("rest", prefetch=10, on_delivery=inbox)
        assert (await inbox.next()).message.body == b"2"
        assert not inbox.waiting
        await broker.close()

    virtual_time.run(main())


def test_what_cannot_be_dead_lettered_is_kept_and_tried_again() -> None:
    async def main() -> None:
        broker = GlassBroker()
        safe = {"x_queue_type": "quorum", "x_dead_letter_strategy": "at-least-once", "x_overflow": "reject-publish"}
        await declare(
            broker, "rest", x_message_ttl=100, x_dead_letter_exchange="", x_dead_letter_routing_key="d", **safe
        )
        await publish(broker, b"1", to="rest")
        await asyncio.sleep(1)
        assert (broker.depth("rest"), broker.unsettled("rest")) == (0, 1)
        await declare(broker, "d", x_max_length=1, x_overflow="reject-publish")
        assert (bodies(broker, "d"), broker.unsettled("rest")) == ([b"1"], 0)
        await publish(broker, b"2", to="rest")
        await asyncio.sleep(1)
        assert (bodies(broker, "d"), broker.unsettled("rest")) == ([b"1"], 1)
        inbox = Arrivals[Delivery]()
        consumer = await broker.consume("d", prefetch=1, on_delivery=inbox)
        await consumer.ack(await inbox.next())
        await asyncio.sleep(200)
        assert broker.unsettled("rest") == 0
        assert (await inbox.next()).message.body == b"2"
        await broker.close()

    virtual_time.run(main())


def test_a_message_that_would_go_round_for_ever_is_dropped() -> None:
    async def main() -> None:
        broker = GlassBroker()
        await declare(broker, "a", x_message_ttl=100, x_dead_letter_exchange="", x_dead_letter_routing_key="b")
        await declare(broker, "b", x_message_ttl=100, x_dead_letter_exchange="", x_dead_letter_routing_key="a")
        await publish(broker, b"1", to="a")
        await asyncio.sleep(0.15)
        assert (broker.depth("a"), broker.depth("b")) == (0, 1)
        await asyncio.sleep(1)
        assert (broker.depth("a"), broker.depth("b")) == (0, 0)
        await broker.close()

    virtual_time.run(main())


# Queues


async def test_a_full_queue_that_does_not_refuse_drops_its_head(broker: GlassBroker) -> None:
    await declare(broker, "dead")
    await declare(broker, "work", x_max_length=2, x_dead_letter_exchange="", x_dead_letter_routing_key="dead")

    await publish(broker, b"1", b"2", b"3", to="work")

    assert bodies(broker, "work") == [b"2", b"3"]
    assert broker.messages("dead")[0].headers["x-death"][0]["reason"] == "maxlen"


async def test_a_single_active_consumer_takes_all_until_it_stops(broker: GlassBroker) -> None:
    await declare(broker, "work", x_single_active_consumer=True)
    ones, twos = Arrivals[Delivery](), Arrivals[Delivery]()
    one = await broker.consume("work", prefetch=10, on_delivery=ones)
    await broker.consume("work", prefetch=10, on_delivery=twos)
    await publish(broker, b"1", b"2", b"3", to="work")
    first, *_ = await ones.take(3)
    await one.ack(first)

    await one.stop(close=True)

    assert [delivery.message.body for delivery in await twos.take(2)] == [b"2", b"3"]


async def test_what_several_consumers_return_comes_again_in_the_old_order(broker: GlassBroker) -> None:
    await declare(broker, "work")
    await publish(broker, *(str(n).encode() for n in range(9)), to="work")
    inboxes = [Arrivals[Delivery]() for _ in range(3)]
    consumers = [await broker.consume("work", prefetch=2, on_delivery=inbox) for inbox in inboxes]
    for inbox in inboxes:
        await inbox.take(2)

    for consumer in consumers:
        await consumer.stop(close=False)
    for consumer in reversed(consumers):
        await consumer.stop(close=True)

    assert bodies(broker, "work") == [str(n).encode() for n in range(9)]


async def test_the_body_is_shared_and_never_copied(broker: GlassBroker) -> None:
    await declare(broker, "work")
    body = bytes(1000)

    await publish(broker, body, to="work")

    assert broker.messages("work")[0].body is body


async def test_headers_are_the_message_s_own(broker: GlassBroker) -> None:
    await declare(broker, "work")
    headers = {"a": [1]}

    await broker.publish(a_message(routing_key="work", headers=headers), timeout=1)
    headers["a"].append(2)
    headers["b"] = [3]

    assert broker.messages("work")[0].headers == {"a": [1]}


async def test_a_body_over_the_limit_is_refused() -> None:
    broker = GlassBroker(max_body=10)
    await declare(broker, "work")

    with pytest.raises(TooLarge, match="11 bytes"):
        await publish(broker, bytes(11), to="work")

    await publish(broker, bytes(10), to="work")


async def test_a_loop_that_publishes_leaves_consumers_their_turn(broker: GlassBroker) -> None:
    await declare(broker, "work")
    inbox = Arrivals[Delivery]()
    await broker.consume("work", prefetch=0, on_delivery=inbox)

    seen = []
    for _ in range(10):
        await publish(broker, b"1", to="work")
        seen.append(len(inbox.all))

    assert seen[-1] >= 9


# Consumers


async def test_a_failing_callback_costs_the_others_nothing(broker: GlassBroker) -> None:
    await declare(broker, "work")
    inbox = Arrivals[Delivery]()
    raised: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: raised.append(context["exception"]))

    def on_delivery(delivery: Delivery) -> None:
        inbox(delivery)
        if delivery.message.body == b"1":
            raise ValueError("no")

    await publish(broker, b"1", b"2", b"3", to="work")
    await broker.consume("work", prefetch=10, on_delivery=on_delivery)

    assert [delivery.message.body for delivery in await inbox.take(3)] == [b"1", b"2", b"3"]
    assert [str(error) for error in raised] == ["no"]


async def test_what_was_not_handed_over_yet_returns_at_once_when_a_consumer_stops(broker: GlassBroker) -> None:
    await declare(broker, "work")
    await publish(broker, b"1", b"2", to="work")
    inbox = Arrivals[Delivery]()
    consumer = await broker.consume("work", prefetch=10, on_delivery=inbox)
    assert broker.unsettled("work") == 2

    await consumer.stop(close=False)

    assert (broker.unsettled("work"), bodies(broker, "work")) == (0, [b"1", b"2"])
    await asyncio.sleep(0)
    assert not inbox.all


async def test_settling_twice_closes_the_channel_and_everything_on_it_comes_again(broker: GlassBroker) -> None:
    await declare(broker, "work")
    await publish(broker, b"1", b"2", to="work")
    inbox = Arrivals[Delivery]()
    consumer = await broker.consume("work", prefetch=10, on_delivery=inbox)
    first, second = await inbox.take(2)
    assert await consumer.ack(first)

    assert not await consumer.ack(first)

    again = await inbox.next()
    assert not consumer.is_current(second)
    assert (again.message.body, again.redelivered) == (b"2", True)


# Sharing


async def test_brokers_of_one_url_share_and_the_last_to_close_drops_it_all() -> None:
    url = f"memory://{uuid.uuid4().hex}"
    one, two = GlassBroker(url), GlassBroker(url)
    await declare(one, "work")
    await publish(one, b"1", to="work")
    state = shared(url)

    await one.close()

    assert bodies(two, "work") == [b"1"]
    await two.close()
    assert shared(url) is not state
    assert not shared(url).queues


async def test_another_url_and_none_share_nothing() -> None:
    one, two, alone = MemoryBroker(f"memory://{uuid.uuid4().hex}"), MemoryBroker("memory://"), MemoryBroker(None)
    for broker in (one, two, alone):
        await declare(broker, "work")

    await publish(one, b"1", to="work")

    counted = [await broker.count("work") for broker in (one, two, alone)]
    assert [found.ready for found in counted if found] == [1, 0, 0]
    for broker in (one, two, alone):
        await broker.close()


def test_a_broker_made_before_the_loop_joins_with_its_first_use() -> None:
    broker = GlassBroker("memory://")

    async def main() -> int:
        await declare(broker, "work")
        depth = broker.depth("work")
        await broker.close()
        return depth

    assert asyncio.run(main()) == 0


def test_loops_share_nothing_and_an_unclosed_broker_leaks_nothing() -> None:
    url = f"memory://{uuid.uuid4().hex}"

    async def main() -> bool:
        broker = GlassBroker(url)
        known = "work" in shared(url).queues
        await declare(broker, "work")
        return known

    assert not asyncio.run(main())
    assert not asyncio.run(main())
    gc.collect()


async def test_a_closed_broker_does_nothing_more(broker: GlassBroker) -> None:
    await declare(broker, "work")

    await broker.close()

    with pytest.raises(NotConnected):
        await publish(broker, b"2", to="work")


# Faults


async def test_a_lost_connection_is_told_and_mended_with_the_next_turn() -> None:
    facts = Arrivals[Fact]()
    broker = GlassBroker(emit=facts)
    await declare(broker, "work")
    consumer = await broker.consume("work", prefetch=1, on_delivery=lambda delivery: None)
    before = len(facts.all)

    broker.lose_connection()
    away = consumer.attached
    await asyncio.sleep(0)

    assert (away, consumer.attached) == (False, True)
    kinds = [type(fact) for fact in facts.all[before:]]
    assert kinds == [Disconnected, Disconnected, Detached, Connected, Connected, Attached]
    await broker.close()


async def test_a_deleted_queue_stays_away_where_nobody_declared_it() -> None:
    url = f"memory://{uuid.uuid4().hex}"
    owner, guest = GlassBroker(url), GlassBroker(url)
    await declare(owner, "work")
    consumer = await guest.consume("work", prefetch=1, on_delivery=lambda delivery: None)
    attached = [consumer.attached]
    await owner.close()

    guest.delete_queue("work")

    attached.append(consumer.attached)
    with pytest.raises(Unroutable):
        await publish(guest, b"1", to="work")
    await declare(guest, "work")
    assert [*attached, consumer.attached] == [True, False, True]
    await guest.close()


async def test_a_deleted_queue_takes_its_messages_and_bindings_along(broker: GlassBroker) -> None:
    binding = Binding("amq.topic", "work", "#")
    await broker.declare(Topology(queues=(Queue("work"),), bindings=(binding,)))
    await publish(broker, b"1", to="work")

    broker.delete_queue("work")

    with pytest.raises(Unroutable):
        await broker.publish(a_message(exchange="amq.topic", routing_key="any"), timeout=1)
    await declare(broker, "work")
    assert broker.depth("work") == 0
