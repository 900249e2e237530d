"""Looking at a broker, and changing it on request, on a connection of one's own: tools do this, workers do not."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiormq import Channel, Connection
from aiormq.exceptions import ChannelAccessRefused, ChannelNotFoundEntity, ChannelPreconditionFailed
from yarl import URL

from ...config import BrokerSettings
from ...events import BrokerUnavailable
from ..seen import Difference, Seen
from ..topology import Topology
from . import declaring
from .explain import explain
from .link import open_channel
from .losses import CONNECTION_ERRORS, close_quietly, lost_as_error
from .tls import tls_context

_RPC = 30.0


async def look(settings: BrokerSettings, topology: Topology) -> Seen:
    """How the broker differs from `topology`. Nothing is declared that is not there.

    Raises `BrokerUnavailable`, `ConfigurationError`."""
    async with _connection(settings) as connection:
        properties: dict[str, Any] = dict(connection.server_properties or {})
        found: list[Difference] = []
        for exchange in topology.exchanges:
            options = {"exchange_type": exchange.kind, "durable": True, "arguments": dict(exchange.arguments)}
            ask = _asker(connection, "exchange_declare", exchange.name, options)
            found += await _compared(ask, f"exchange {exchange.name}")
        for queue in topology.queues:
            ask = _asker(connection, "queue_declare", queue.name, {"durable": True, "arguments": dict(queue.arguments)})
            found += await _compared(ask, f"queue {queue.name}")
        return Seen(str(properties.get("product", "?")), str(properties.get("version", "?")), tuple(found))


async def apply_topology(settings: BrokerSettings, topology: Topology) -> None:
    """Create what is missing. Raises `BrokerUnavailable`, `TopologyDrift`, `TopologyError`."""
    async with _connection(settings) as connection:
        await declaring.declare(connection, topology)


_Ask = Callable[[bool], Awaitable[object]]


def _asker(connection: Connection, method: str, name: str, options: dict[str, Any]) -> _Ask:
    """Declares on a channel of its own, which a refusal closes; passively where that is asked for."""

    async def ask(passive: bool) -> None:
        channel: Channel = await open_channel(connection, confirms=False, timeout=_RPC)
        try:
            await getattr(channel, method)(name, timeout=_RPC, **({"passive": True} if passive else options))
        finally:
            await close_quietly(channel, 5)

    return ask


async def _compared(ask: _Ask, thing: str) -> list[Difference]:
    """Only what exists is declared: the same arguments change nothing, others are refused with the one that differs."""
    try:
        await ask(True)
        await ask(False)
    except ChannelNotFoundEntity:
        return [Difference("missing", thing, f"there is no {thing}")]
    except ChannelPreconditionFailed as error:
        return [Difference("differs", thing, declaring.difference(str(error)))]
    except ChannelAccessRefused:
        return [Difference("unread", thing, f"this user may not compare the arguments of {thing} (no configure right)")]
    return []


@asynccontextmanager
async def _connection(settings: BrokerSettings) -> AsyncIterator[Connection]:
    url = URL(settings.url.get_secret_value()).update_query(name="holdfast look", heartbeat=settings.heartbeat)
    connection = Connection(url, context=tls_context(settings))
    place = URL.build(scheme=url.scheme, host=url.host or "", port=url.explicit_port, path=url.path)
    try:
        with lost_as_error:
            async with asyncio.timeout(settings.connect_timeout):
                await connection.connect()
            yield connection
    except CONNECTION_ERRORS as error:
        raise BrokerUnavailable(f"{place}: {explain(error)}") from None
    finally:
        await close_quietly(connection, 1)
