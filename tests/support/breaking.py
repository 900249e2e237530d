"""What a test does to a broker behind a worker's back, and what it asks the broker afterwards."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiormq
from aiormq.abc import AbstractChannel
from aiormq.exceptions import ChannelNotFoundEntity
from proxy import Proxy

from holdfast import Settings
from holdfast.broker.ladder import level_name, levels_for
from holdfast.testing.servers import Node


def with_broker(settings: Settings, **changes: Any) -> Settings:
    """The settings with other `broker` values."""
    return settings.model_copy(update={"broker": settings.broker.model_copy(update=changes)})


def with_worker(settings: Settings, **changes: Any) -> Settings:
    """The settings with other `worker` values."""
    return settings.model_copy(update={"worker": settings.worker.model_copy(update=changes)})


def with_url(settings: Settings, url: str) -> Settings:
    """The settings with another broker URL."""
    return with_broker(settings, url=type(settings.broker.url)(url))


def through(proxy: Proxy, settings: Settings) -> Settings:
    """The same broker, reached through the proxy."""
    return with_url(settings, proxy.url(settings.broker.url.get_secret_value()))


@asynccontextmanager
async def a_channel(settings: Settings) -> AsyncIterator[AbstractChannel]:
    """A bare channel, past Holdfast."""
    connection = await aiormq.connect(settings.broker.url.get_secret_value())
    try:
        yield await connection.channel()
    finally:
        await connection.close()


async def purge(settings: Settings, queue: str) -> None:
    """Empty a queue, if it is there."""
    async with a_channel(settings) as channel:
        with suppress(ChannelNotFoundEntity):
            await channel.queue_purge(queue)


async def purge_delays(settings: Settings) -> None:
    """Empty the delay ladder: a delayed event would come to a later test that listens for its type."""
    for level in range(levels_for(3600)):
        await purge(settings, level_name(level))


async def delete(settings: Settings, *, exchanges: tuple[str, ...] = (), queues: tuple[str, ...] = ()) -> None:
    """Delete exchanges and queues, whatever they hold."""
    async with a_channel(settings) as channel:
        for exchange in exchanges:
            await channel.exchange_delete(exchange)
        for queue in queues:
            await channel.queue_delete(queue)


async def messages_in(node: Node, queue: str) -> int:
    """How many messages a classic queue has, those unacked included. (Of a quorum queue the node counts seldom.)"""
    listing = await asyncio.to_thread(node.ctl, "list_queues", "name", "messages", "--no-table-headers")
    counts = dict(line.split() for line in listing.splitlines() if line)
    return int(counts[queue])
