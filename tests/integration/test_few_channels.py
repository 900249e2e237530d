"""A RabbitMQ that allows few channels: what is not consumed, or not published to, is said, and readiness tells it."""

import asyncio
import re
from collections.abc import Iterator

import pytest
from breaking import through
from proxy import Direction, proxy_to
from rabbits import Rabbit
from running import a_worker, publish_all, running, settings_for, until_ready
from waiting import Facts, Tally

from holdfast import Context, Event, Publisher, Reject, Retry, Settings
from holdfast.broker import Topology, open_broker, resting_queue
from holdfast.events import Message
from holdfast.telemetry import Attached, Detached, PublishingHeld, PublishingResumed

CHANNELS = 8


class Paid(Event, type="paid"):
    order: str


@pytest.fixture
def settings(rabbit: Rabbit, unique: str) -> Iterator[Settings]:
    """Settings for a broker that allows few channels."""
    rabbit.node.ctl("eval", f"application:set_env(rabbit, channel_max, {CHANNELS}).")
    yield settings_for(rabbit.node.url, unique)
    rabbit.node.ctl("eval", "application:set_env(rabbit, channel_max, 2047).")


async def test_queues_beyond_the_channels_are_named_and_the_worker_is_not_ready(settings: Settings) -> None:
    facts = Facts()
    worker = a_worker(settings, facts)
    for number in range(12):
        worker.handler(Paid, name=f"h{number}")(ignore)

    task = asyncio.create_task(worker.run())
    await facts.until(Attached, count=CHANNELS)
    lacking = {fact.queue for fact in await facts.until(Detached, count=4)}
    health = worker.health()
    worker.stop()
    await task

    errors = {fact.error for fact in facts.of(Detached)}
    assert len(lacking) == 4
    assert set(health.missing) == {f"consumer of {queue}" for queue in lacking}
    assert len(errors) == 1 and errors.pop().startswith(f"all {CHANNELS} channels of this connection are in use: raise")


async def ignore(event: Paid) -> None: ...


async def test_a_consumer_takes_the_channel_that_another_one_leaves(settings: Settings) -> None:
    facts, names = Facts(), [f"{settings.broker.exchange}.{number}" for number in range(CHANNELS + 1)]
    broker = await open_broker(settings, facts)
    await broker.declare(Topology(queues=tuple(map(resting_queue, names))))

    consumers = [await broker.consume(name, prefetch=1, on_delivery=lambda delivery: None) for name in names]
    await facts.until(Attached, count=CHANNELS)
    await facts.until(Detached)
    await next(consumer for consumer in consumers if consumer.attached).stop(close=True)
    await facts.until(Attached)
    await broker.close()


async def test_more_addresses_than_channels_are_published_to_by_turns(settings: Settings) -> None:
    facts, names = Facts(), [f"{settings.broker.exchange}.{number}" for number in range(3 * CHANNELS)]
    broker = await open_broker(settings, facts)
    await broker.declare(Topology(queues=tuple(map(resting_queue, names))))

    for _ in range(2):
        await asyncio.gather(*(broker.publish(Message(b"1", "", name), timeout=30) for name in names))
    depths = [await broker.count(name) for name in names]
    await broker.close()

    assert [depth and depth.ready for depth in depths] == [2] * len(names)


async def test_retries_of_a_handler_go_through_more_levels_than_there_are_channels(settings: Settings) -> None:
    facts, ran = Facts(), Tally[str]()
    worker = a_worker(settings, facts)

    @worker.handler(Paid, retry=Retry(attempts=2, backoff=lambda attempt: 0.1))
    async def handle(event: Paid, ctx: Context) -> None:
        ran[event.order] += 1
        if ctx.attempt == 1:
            raise OSError("not yet")

    async with running(worker), Publisher(settings) as publisher:
        delays = [0.1 * 2**level for level in range(5)]
        for delay in delays:
            await publisher.publish(Paid(order=f"{delay}"), delay=delay)
        await facts.settled("handled", count=len(delays))

    assert set(ran.values()) == {2}


async def test_while_no_channel_can_be_opened_to_publish_the_worker_is_not_ready(settings: Settings) -> None:
    facts = Facts()
    async with proxy_to(settings.broker.url.get_secret_value()) as proxy:
        worker = a_worker(through(proxy, settings), facts)
        for number in range(CHANNELS):
            worker.handler(Paid, name=f"h{number}")(refuse)
        async with running(worker):
            proxy.alter = without_confirms
            await publish_all(settings, [Paid(order="o-1")])
            held = await facts.until(PublishingHeld, count=3)  # three channels are kept for other purposes
            missing = worker.health().missing
            proxy.alter = lambda data, way: data
            proxy.cut()
            await facts.settled("dead_lettered", count=CHANNELS)
            await until_ready(worker)

    assert set(missing) == {f"channel to publish to {fact.target}" for fact in held}
    assert {fact.error for fact in held} == {
        f"all {CHANNELS - 3} channels to publish on wait for confirms: raise channel_max of RabbitMQ"
    }
    assert {fact.target for fact in facts.of(PublishingResumed)} == {fact.target for fact in facts.of(PublishingHeld)}


async def refuse(event: Paid) -> None:
    raise Reject("no")


def without_confirms(data: bytes, way: Direction) -> bytes:
    """Take away each `basic.ack`, which a broker sends as the confirm of a publish."""
    return re.sub(rb"\x01..\x00\x00\x00\x0d\x00\x3c\x00\x50.{9}\xce", b"", data, flags=re.DOTALL)
