"""What is under way when a channel or a connection closes."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from builders import a_message

from holdfast import Settings
from holdfast.broker.amqp.acks import ack_frame
from holdfast.broker.amqp.deliveries import Deliveries
from holdfast.broker.amqp.link import open_channel
from holdfast.broker.amqp.losses import close_quietly
from holdfast.broker.amqp.packing import pack
from holdfast.broker.amqp.sending import Direct
from holdfast.broker.amqp.settling import Together
from holdfast.broker.amqp.wire import TappedConnection
from yarl import URL


@pytest.fixture
async def connection(settings: Settings) -> AsyncIterator[TappedConnection]:
    connection = TappedConnection(URL(settings.broker.url.get_secret_value()))
    await connection.connect()
    yield connection
    await close_quietly(connection, 5)


async def test_acks_on_a_channel_that_the_broker_closes_leave_the_connection(connection: TappedConnection) -> None:
    channel = await open_channel(connection, confirms=False)
    deliveries = Deliveries(lambda *_: None)
    connection.wire.tap(channel.number, deliveries)
    settling, tag = Together(connection.wire, channel, deliveries), 0

    connection.wire.write(ack_frame(channel.number, 1_000_000, multiple=False))  # of nothing: it closes the channel
    while not channel.is_closed:
        tag += 1
        await settling.ack(tag)
        await asyncio.sleep(0)

    other = await open_channel(connection, confirms=False)
    await other.basic_qos(prefetch_count=1, timeout=10)


async def test_publishes_on_a_channel_that_the_broker_closes_leave_the_connection(
    connection: TappedConnection,
) -> None:
    channel = await open_channel(connection, confirms=True)
    sending, publishes = Direct(connection.wire, channel), []
    message = a_message(exchange="", routing_key="nowhere")

    connection.wire.write(ack_frame(channel.number, 1_000_000, multiple=False))
    while not channel.is_closed:
        publishes.append(asyncio.ensure_future(sending.send(message, pack(message))))
        await asyncio.sleep(0)
    await asyncio.gather(*publishes, return_exceptions=True)

    other = await open_channel(connection, confirms=False)
    await other.basic_qos(prefetch_count=1, timeout=10)
