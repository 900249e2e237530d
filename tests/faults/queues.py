"""What is in the queues of a run, and who is connected to them."""

import asyncio
import time
from typing import Any

from aiormq.abc import AbstractChannel, DeliveredMessage
from aiormq.exceptions import AMQPError, ConnectionInternalError
from breaking import a_channel
from checks_of_order import MARKS

from holdfast import Settings
from holdfast.events import headers as h
from holdfast.testing.servers import Node

LEADERLESS = 30.0  # seconds


async def waiting(settings: Settings, names: list[str]) -> int:
    """How many messages wait in these queues; at least 1 where the broker does not say."""
    try:
        async with a_channel(settings) as channel:
            return sum([(await channel.queue_declare(name, passive=True)).message_count or 0 for name in names])
    except Exception:  # noqa: BLE001 (it is not there yet)
        return 1


async def take(settings: Settings, queue: str, *, is_single: bool = False) -> list[dict[str, Any]]:
    """Take all messages out of a queue: their headers. A queue that has just lost its leader is given time.
    `is_single`: it has a single active consumer, and refuses `basic.get`."""
    last = time.monotonic() + LEADERLESS
    while True:
        try:
            async with a_channel(settings) as channel:
                return await (_consumed if is_single else _got)(queue, channel)
        except ConnectionInternalError:  # nothing is taken then
            if time.monotonic() > last:
                raise
            await asyncio.sleep(0.5)


async def _got(queue: str, channel: AbstractChannel) -> list[dict[str, Any]]:
    taken, last = list[dict[str, Any]](), 0
    while (got := await channel.basic_get(queue)).delivery_tag is not None:
        taken.append(dict(got.header.properties.headers or {}))
        last = got.delivery_tag
    if last:
        await channel.basic_ack(last, multiple=True)
    return taken


async def _consumed(queue: str, channel: AbstractChannel) -> list[dict[str, Any]]:
    count = (await channel.queue_declare(queue, passive=True)).message_count or 0
    came: asyncio.Queue[DeliveredMessage] = asyncio.Queue()
    if count:
        await channel.basic_consume(queue, came.put)
    async with asyncio.timeout(LEADERLESS):
        taken = [await came.get() for _ in range(count)]
    if taken:
        await channel.basic_ack(taken[-1].delivery_tag or 0, multiple=True)
    return [dict(one.header.properties.headers or {}) for one in taken]


async def left(settings: Settings, queue: str, *, is_single: bool = False) -> list[str]:
    """The events that are still in a queue, or why that cannot be seen. The marks of owners are none."""
    try:
        taken = await take(settings, queue, is_single=is_single)
    except AMQPError as error:  # such as that of a queue without a leader
        return [f"{type(error).__name__}: {error}"]
    return [str(told.get(h.EVENT_ID)) for told in taken if told.get(h.LEDGER) not in MARKS]


async def kinds(settings: Settings, queue: str) -> list[str]:
    """What lies in a ledger that nobody owns, by kind."""
    return [str(told.get(h.LEDGER)) for told in await take(settings, queue, is_single=True)]


async def channels(broker: Node) -> int:
    """How many channels the broker has open."""
    return len((await asyncio.to_thread(broker.ctl, "list_channels", "pid", "--no-table-headers")).splitlines())
