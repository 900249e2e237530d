"""What is in the queues of a run, and who is connected to them."""

import asyncio
import time
from typing import Any

from aiormq.abc import AbstractChannel
from aiormq.exceptions import AMQPError, ConnectionInternalError
from breaking import a_channel

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


async def take(settings: Settings, queue: str) -> list[dict[str, Any]]:
    """Take all messages out of a queue: their headers. A queue that has just lost its leader is given time."""
    last = time.monotonic() + LEADERLESS
    while True:
        try:
            async with a_channel(settings) as channel:
                return await _all_of(queue, channel)
        except ConnectionInternalError:  # nothing is taken then
            if time.monotonic() > last:
                raise
            await asyncio.sleep(0.5)


async def _all_of(queue: str, channel: AbstractChannel) -> list[dict[str, Any]]:
    taken, last = list[dict[str, Any]](), 0
    while (got := await channel.basic_get(queue)).delivery_tag is not None:
        taken.append(dict(got.header.properties.headers or {}))
        last = got.delivery_tag
    if last:
        await channel.basic_ack(last, multiple=True)
    return taken


async def left(settings: Settings, queue: str) -> list[str]:
    """The events that are still in a queue, or why that cannot be seen."""
    try:
        return [str(told.get(h.EVENT_ID)) for told in await take(settings, queue)]
    except AMQPError as error:  # such as that of a queue without a leader
        return [f"{type(error).__name__}: {error}"]


async def channels(broker: Node) -> int:
    """How many channels the broker has open."""
    return len((await asyncio.to_thread(broker.ctl, "list_channels", "pid", "--no-table-headers")).splitlines())
