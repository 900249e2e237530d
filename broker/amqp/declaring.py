"""Making the broker match a `Topology`, or checking that it does."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import assert_never

from aiormq import Channel, Connection
from aiormq.exceptions import (
    ChannelAccessRefused,
    ChannelLockedResource,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
)

from ...events import TopologyDrift, TopologyError, TopologyMissing
from ..topology import Binding, Exchange, Queue, Topology
from .explain import explain
from .link import open_channel
from .losses import close_quietly, while_open

_INEQUIVALENT = re.compile(
    r"inequivalent arg '(.+?)' for (\w+) '(.+?)' in vhost '.*?': received (.+?) but current is (.+)"
)
_TIMEOUT = 30.0


async def declare(connection: Connection, topology: Topology) -> None:
    """Create what is missing. Raises `TopologyDrift` naming the argument that differs, `TopologyError`."""
    await while_open(connection, _declare(connection, topology))


async def _declare(connection: Connection, topology: Topology) -> None:
    async with _channel(connection) as channel:
        things: tuple[Exchange | Queue | Binding, ...] = (*topology.exchanges, *topology.queues, *topology.bindings)
        for thing in things:
            try:
                await _make(channel, thing)
            except ChannelAccessRefused as error:
                told = explain(error, right=_right(thing, str(error)))
                raise TopologyError(f"{told}; grant the right, or use HOLDFAST_BROKER__TOPOLOGY=verify") from None


async def _make(channel: Channel, thing: Exchange | Queue | Binding) -> None:
    match thing:
        case Exchange(name, kind, arguments):
            await channel.exchange_declare(
                name, exchange_type=kind, durable=True, arguments=dict(arguments), timeout=_TIMEOUT
            )
        case Queue(name, arguments):
            await channel.queue_declare(name, durable=True, arguments=dict(arguments), timeout=_TIMEOUT)
        case Binding(source, destination, key, to_exchange, headers):
            bind = channel.exchange_bind if to_exchange else channel.queue_bind
            await bind(destination, source, key, arguments=dict(headers), timeout=_TIMEOUT)
        case _:
            assert_never(thing)


def _right(thing: Exchange | Queue | Binding, refused: str) -> str:
    """Which right was needed on what RabbitMQ names as refused (Access Control guide: rights of each operation)."""
    match thing:
        case Binding(source):
            return "read" if f"'{source}'" in refused else "write"
        case Exchange(name, _, arguments) | Queue(name, arguments):
            if f"'{name}'" not in refused:
                return "write"  # where its dead letters, or what it cannot route, go
            forwards = arguments.keys() & {"x-dead-letter-exchange", "alternate-exchange"}
            return "configure or read" if forwards else "configure"
        case _:
            assert_never(thing)


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
        told = str(error).removeprefix("NOT_FOUND - ")
        raise TopologyMissing(f"{told}; declare it, or run with HOLDFAST_BROKER__TOPOLOGY=declare") from None
    except ChannelLockedResource as error:
        raise TopologyError(f"{explain(error)}; another connection has it for itself: end that one") from None
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
