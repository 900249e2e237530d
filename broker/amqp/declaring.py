"""Making the broker match a `Topology`, or checking that it does."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from aiormq import Channel, Connection
from aiormq.exceptions import ChannelAccessRefused, ChannelNotFoundEntity, ChannelPreconditionFailed

from ...events import TopologyDrift, TopologyError, TopologyMissing
from ..topology import Topology
from .link import close_quietly, open_channel, while_open

_INEQUIVALENT = re.compile(
    r"inequivalent arg '(.+?)' for (\w+) '(.+?)' in vhost '.*?': received (.+?) but current is (.+)"
)
_TIMEOUT = 30.0


async def declare(connection: Connection, topology: Topology) -> None:
    """Create what is missing. Raises `TopologyDrift` naming the argument that differs, `TopologyError`."""
    await while_open(connection, _declare(connection, topology))


async def _declare(connection: Connection, topology: Topology) -> None:
    async with _channel(connection) as channel:
        for exchange in topology.exchanges:
            await channel.exchange_declare(
                exchange.name,
                exchange_type=exchange.kind,
                durable=True,
                arguments=dict(exchange.arguments),
                timeout=_TIMEOUT,
            )
        for queue in topology.queues:
            await channel.queue_declare(queue.name, durable=True, arguments=dict(queue.arguments), timeout=_TIMEOUT)
        for binding in topology.bindings:
            if binding.to_exchange:
                await channel.exchange_bind(binding.destination, binding.source, binding.key, timeout=_TIMEOUT)
            else:
                await channel.queue_bind(binding.destination, binding.source, binding.key, timeout=_TIMEOUT)


async def verify(connection: Connection, topology: Topology) -> None:
    """Check that every exchange and queue exists (bindings cannot be read over AMQP). Raises `TopologyMissing`."""
    await while_open(connection, _verify(connection, topology))


async def _verify(connection: Connection, topology: Topology) -> None:
    async with _channel(connection) as channel:
        for exchange in topology.exchanges:
            await channel.exchange_declare(exchange.name, passive=True, timeout=_TIMEOUT)
        for queue in topology.queues:
            await channel.queue_declare(queue.name, passive=True, timeout=_TIMEOUT)


@asynccontextmanager
async def _channel(connection: Connection) -> AsyncIterator[Channel]:
    channel = await open_channel(connection, confirms=False, timeout=_TIMEOUT)
    try:
        yield channel
    except ChannelPreconditionFailed as error:
        raise TopologyDrift(difference(str(error))) from None
    except ChannelNotFoundEntity as error:
        raise TopologyMissing(f"{_said(error)}; declare it, or run with HOLDFAST_BROKER__TOPOLOGY=declare") from None
    except ChannelAccessRefused as error:
        raise TopologyError(f"{_said(error)}; grant the permission, or use HOLDFAST_BROKER__TOPOLOGY=verify") from None
    finally:
        with suppress(ConnectionError):
            await while_open(connection, close_quietly(channel, 5))


def difference(text: str) -> str:
    """What RabbitMQ's 406 says, and what to do about it."""
    found = _INEQUIVALENT.search(text)
    if found is None:
        return text
    argument, kind, name, ours, theirs = found.groups()
    return (
        f"{kind} '{name}' exists with {argument} = {theirs}, but this process declares {ours}; "
        f"change the setting to match, or drain and delete the {kind} so that it is made anew"
    )


def _said(error: Exception) -> str:
    return str(error).removeprefix("NOT_FOUND - ").removeprefix("ACCESS_REFUSED - ")
