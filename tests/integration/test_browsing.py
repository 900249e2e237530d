"""Reading without taking where one consumer cannot hold all there is: the order must survive several of them."""

import asyncio
from contextlib import suppress

import aiormq
import pytest
from proxy import proxy_to
from yarl import URL

from holdfast.broker import Held
from holdfast.broker.amqp.browser import open_browser


@pytest.mark.parametrize("kind", ["classic", "quorum"])
async def test_many_consumers_of_one_reader_return_what_they_hold_in_order(
    rabbitmq_url: str, unique: str, kind: str
) -> None:
    connection = await aiormq.connect(rabbitmq_url)
    channel = await connection.channel()
    await channel.queue_declare(unique, durable=True, arguments={"x-queue-type": kind})
    bodies = [str(n).encode() for n in range(310)]
    await asyncio.gather(*(channel.basic_publish(body, routing_key=unique) for body in bodies))
    readings = []

    async with proxy_to(rabbitmq_url) as proxy:
        for cut in (False, True, False):
            held: list[Held] = []
            url = URL(proxy.url(rabbitmq_url))
            browser = await open_browser((url,), unique, held.append, connect_timeout=10, prefetch=10)
            await browser.caught_up()
            readings.append([one.message.body for one in held])
            if cut:
                proxy.cut()
                await proxy.until_connections(0)
            with suppress(OSError):
                await browser.close()

    assert readings == [bodies] * 3
    await channel.queue_delete(unique)
    await connection.close()
