"""Asking how much is in very many queues: on a few channels, at the same time, and of queues that are not there."""

import asyncio
import gc
import weakref
from contextlib import suppress

import pytest
from aiormq.exceptions import ChannelNotFoundEntity
from breaking import through
from pamqp import commands as spec
from pamqp.frame import marshal
from proxy import Direction, proxy_to
from running import Facts, a_broker
from waiting import LIMIT
from yarl import URL

from holdfast import Settings
from holdfast.broker import Broker, Queue, Topology, open_broker
from holdfast.broker.amqp.browser import depth_of
from holdfast.broker.amqp.connection import WiredChannel, WiredConnection
from holdfast.dead_letters.queues import several
from holdfast.events import BrokerUnavailable, Message
from holdfast.telemetry import Attached, Detached

OPEN = marshal(spec.Channel.Open(), 1)[3:]  # what comes behind the number of the channel
TUNE = b"\x00\x0a\x00\x1e"  # class and method, before the largest number of a channel
AT_A_TIME = 16


async def declare(broker: Broker, *names: str) -> None:
    await broker.declare(Topology(queues=tuple(Queue(name, {"x-expires": 600_000}) for name in names)))


async def test_hundreds_of_queues_are_asked_on_no_more_channels_than_are_asked_at_a_time(
    settings: Settings, unique: str
) -> None:
    names = [f"{unique}.{n}" for n in range(200)]
    sent = bytearray()
    async with a_broker(settings) as broker:
        await declare(broker, *names)

    def listen(data: bytes, way: Direction) -> bytes:
        if way is Direction.TO_SERVER:
            sent.extend(data)
        return data

    async with proxy_to(settings.broker.url.get_secret_value()) as proxy:
        proxy.alter = listen
        async with a_broker(through(proxy, settings)) as broker:
            depths = await several(broker.count, names, at_a_time=AT_A_TIME)

    assert len([depth for depth in depths.values() if depth is not None]) == 200
    assert 0 < sent.count(OPEN) <= AT_A_TIME + 1  # and one that declares


async def test_queues_that_are_not_there_are_told_from_those_that_are(settings: Settings, unique: str) -> None:
    """Of one that is not, the broker closes the channel on which it is asked."""
    names = [f"{unique}.{n}" for n in range(450)]
    there = names[::9]
    async with a_broker(settings) as broker:
        await declare(broker, *there)

        depths = await several(broker.count, names, at_a_time=AT_A_TIME)

    assert [name for name, depth in depths.items() if depth is not None] == sorted(there)


async def test_the_number_of_a_channel_that_the_broker_closed_is_not_used_again_soon(rabbitmq_url: str) -> None:
    """RabbitMQ ends the connection where it has not read yet that the client knows (`second 'channel.open' seen`)."""
    connection = WiredConnection(URL(rabbitmq_url))
    await connection.connect()
    numbers = []

    for _ in range(20):
        channel = await connection.open_channel()
        numbers.append(channel.number)
        with pytest.raises(ChannelNotFoundEntity):
            await depth_of(channel, "no.such.queue")

    await connection.close()
    assert len(set(numbers)) == 20


async def test_a_channel_that_was_closed_leaves_nothing_on_its_connection(rabbitmq_url: str) -> None:
    connection = WiredConnection(URL(rabbitmq_url))
    await connection.connect()
    channels = weakref.WeakSet[WiredChannel]()

    for _ in range(20):
        channel = await connection.open_channel()
        channels.add(channel)
        with pytest.raises(ChannelNotFoundEntity):
            await depth_of(channel, "no.such.queue")
    del channel
    await connection.open_channel()
    gc.collect()

    assert len(channels) <= 1  # the last one may be about to close
    await connection.close()


async def test_consumers_beyond_the_number_of_channels_wait_for_one_that_is_free(
    settings: Settings, unique: str
) -> None:
    names = [f"{unique}.{n}" for n in range(12)]
    facts = Facts()

    def with_few_channels(data: bytes, way: Direction) -> bytes:
        return data if way is Direction.TO_SERVER else data.replace(TUNE + b"\x07\xff", TUNE + b"\x00\x08")

    async with proxy_to(settings.broker.url.get_secret_value()) as proxy:
        proxy.alter = with_few_channels
        broker = await open_broker(through(proxy, settings), facts.record)
        await declare(broker, *names)
        consumers = [await broker.consume(name, prefetch=1, on_delivery=lambda _: None) for name in names]
        await facts.until(Attached, count=8)
        waiting = await facts.until(Detached, count=4)
        for consumer in consumers:
            if consumer.attached:
                await consumer.stop(close=True)
        await facts.until(Attached, count=12)
        await broker.close()

    assert all(fact.error.startswith("all 8 channels of this connection are in use: raise ") for fact in waiting)
    assert len({fact.queue for fact in facts.of(Attached)}) == 12


async def test_who_gives_up_asking_leaves_no_answer_to_the_next(settings: Settings, unique: str) -> None:
    one, two = f"{unique}.one", f"{unique}.two"
    async with proxy_to(settings.broker.url.get_secret_value()) as proxy, a_broker(through(proxy, settings)) as broker:
        await declare(broker, one, two)
        await broker.publish(Message(b"{}", routing_key=one), timeout=10)
        before = await broker.count(one)

        proxy.swallow(Direction.TO_CLIENT)
        asking = asyncio.create_task(broker.count(one))
        await proxy.until_withheld(Direction.TO_CLIENT)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        proxy.resume()
        after = await broker.count(two)

    assert before is not None
    assert after is not None
    assert (before.ready, after.ready) == (1, 0)


@pytest.mark.parametrize("is_there", [True, False])
async def test_a_task_that_asks_ends_at_whatever_moment_it_is_cancelled(
    settings: Settings, unique: str, is_there: bool
) -> None:
    """Up to Python 3.11 `wait_for`, which aiormq uses, may swallow the cancellation."""
    async with a_broker(settings) as broker:
        if is_there:
            await declare(broker, unique)

        async def ask() -> None:
            while True:
                with suppress(BrokerUnavailable):
                    await broker.count(unique)

        for moment in range(40):
            asking = asyncio.create_task(ask())
            asyncio.get_running_loop().call_later(moment * 2e-4, asking.cancel)
            ended, _ = await asyncio.wait({asking}, timeout=LIMIT)
            assert ended, moment
