"""Making the broker match a `Topology`, checking that it does, and comparing the two."""

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TypeAlias, assert_never

from aiormq.exceptions import (
    ChannelAccessRefused,
    ChannelLockedResource,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
)
from yarl import URL

from ...config import BrokerSettings
from ...events import BrokerUnavailable, TopologyDrift, TopologyError, TopologyMissing
from .. import ladder
from ..management import Management
from ..open import tls_context
from ..topology import Binding, Comparison, Difference, Exchange, Queue, Topology, binding_differences
from .browser import depth_of
from .connection import WiredChannel, WiredConnection, addresses_now, close_quietly, connect_to_one, shown
from .errors import CONNECTION_ERRORS, explain
from .lifetime import lost_as_error, while_open

_INEQUIVALENT = re.compile(
    r"inequivalent arg '(.+?)' for (\w+) '(.+?)' in vhost '.*?': received (.+?) but current is (.+)"
)
_TIMEOUT = 30.0
_MANAGEMENT_TIMEOUT = 3.0  # seconds: a worker waits for it before it starts
_NAMED = 10  # bindings that are missing

Item: TypeAlias = Exchange | Queue | Binding


async def declare(connection: WiredConnection, topology: Topology) -> None:
    """Create what is missing. Raises `TopologyDrift` naming the argument that differs, `TopologyError`."""
    items: tuple[Item, ...] = (*topology.exchanges, *topology.queues, *topology.bindings)
    others = {item.name for item in items if not isinstance(item, Binding) and item.existing}
    last = sorted(items, key=lambda item: not others.isdisjoint(_names(item)))  # one that is missing holds up no other
    await while_open(connection, _walk(connection, last, passive=False))


async def verify(connection: WiredConnection, topology: Topology) -> None:
    """Check that every exchange and queue exists (see `verify_bindings` for the rest). Raises `TopologyMissing`."""
    await while_open(connection, _walk(connection, (*topology.exchanges, *topology.queues), passive=True))


async def verify_bindings(settings: BrokerSettings, topology: Topology) -> None:
    """Check that every binding exists: without one of the ladder's, a queue would never see its retries again.

    AMQP does not list bindings, so the management API is asked. Raises `TopologyMissing`, `ManagementUnavailable`."""
    if not topology.bindings:
        return
    there = await Management(settings.current(), timeout=_MANAGEMENT_TIMEOUT).bindings()
    missing = [one.message for one in binding_differences(topology, there) if one.kind == "unbound"]
    if missing:
        more = [f"{len(missing) - _NAMED} more bindings are missing"] if len(missing) > _NAMED else []
        raise TopologyMissing("\n".join((*missing[:_NAMED], *more, "`holdfast topology apply` declares them")))


async def apply_topology(settings: BrokerSettings, topology: Topology) -> None:
    """Create what is missing. Raises `BrokerUnavailable`, `TopologyDrift`, `TopologyError`."""
    async with _connection(settings) as connection:
        await declare(connection, topology)


async def compare_topology(settings: BrokerSettings, topology: Topology) -> Comparison:
    """Compare the broker with `topology`. Nothing is declared that does not exist.

    Raises `BrokerUnavailable`, `ConfigurationError`."""
    async with _connection(settings) as connection:
        items: tuple[Exchange | Queue, ...] = (*topology.exchanges, *topology.queues)
        compared = [await _compare(connection, item) for item in items]
        differences = tuple(one for one in compared if one is not None)
        return Comparison(*connection.server, differences, await _unrouted(connection))


async def _unrouted(connection: WiredConnection) -> int:
    channel = await connection.open_channel(timeout=_TIMEOUT)
    try:
        return (await depth_of(channel, ladder.UNROUTED)).ready
    except ChannelNotFoundEntity:
        return 0
    finally:
        await close_quietly(channel, 5)


async def _walk(connection: WiredConnection, items: Sequence[Item], *, passive: bool) -> None:
    channel = await connection.open_channel(timeout=_TIMEOUT)
    try:
        for item in items:
            try:
                await _declare(channel, item, passive=passive)
            except ChannelAccessRefused as error:
                if passive:
                    raise
                line = explain(error, right=_right(item, str(error)))
                raise TopologyError(f"{line}; grant the right, or use HOLDFAST_BROKER__TOPOLOGY=verify") from None
    except ChannelPreconditionFailed as error:
        raise TopologyDrift(difference(str(error))) from None
    except ChannelNotFoundEntity as error:
        missing = str(error).removeprefix("NOT_FOUND - ")
        if isinstance(item, Exchange | Queue) and item.existing:
            raise TopologyMissing(f"{missing}; as Existing({item.name!r}) it is left to others to declare") from None
        raise TopologyMissing(f"{missing}; declare it, or run with HOLDFAST_BROKER__TOPOLOGY=declare") from None
    except ChannelLockedResource as error:
        raise TopologyError(f"{explain(error)}; another connection has it for itself: end that one") from None
    finally:
        with suppress(ConnectionError):
            await while_open(connection, close_quietly(channel, 5))


async def _compare(connection: WiredConnection, item: Exchange | Queue) -> Difference | None:
    """Return how an exchange or queue differs. Only one that exists is declared: the same arguments change nothing,
    others are refused with the one that differs. Each question has a channel of its own, which a refusal closes."""
    name = f"{'exchange' if isinstance(item, Exchange) else 'queue'} {item.name}"
    try:
        for passive in (True,) if item.existing else (True, False):
            channel = await connection.open_channel(timeout=_TIMEOUT)
            try:
                await _declare(channel, item, passive=passive)
            finally:
                await close_quietly(channel, 5)
    except ChannelNotFoundEntity:
        return Difference("missing", name, f"there is no {name}")
    except ChannelPreconditionFailed as error:
        return Difference("differs", name, difference(str(error)))
    except ChannelAccessRefused:
        return Difference("unread", name, f"this user may not compare the arguments of {name} (no configure right)")
    return None


async def _declare(channel: WiredChannel, item: Item, *, passive: bool) -> None:
    match item:
        case Exchange(name, kind, arguments, existing):
            await channel.declare_exchange(
                name, kind, durable=True, arguments=dict(arguments), passive=passive or existing, timeout=_TIMEOUT
            )
        case Queue(name, arguments, existing):
            await channel.declare_queue(
                name, durable=True, arguments=dict(arguments), passive=passive or existing, timeout=_TIMEOUT
            )
        case Binding(source, destination, key, True, headers):
            exchange = await channel.get_exchange(destination, ensure=False)
            await exchange.bind(source, key, arguments=dict(headers), timeout=_TIMEOUT)
        case Binding(source, destination, key, _, headers):
            queue = await channel.get_queue(destination, ensure=False)
            await queue.bind(source, key, arguments=dict(headers), timeout=_TIMEOUT)
        case _:
            assert_never(item)


def _names(item: Item) -> tuple[str, ...]:
    return (item.source, item.destination) if isinstance(item, Binding) else (item.name,)


def _right(item: Item, refused: str) -> str:
    """Return the permission that was needed on what RabbitMQ names as refused (Access Control guide: rights of each
    operation)."""
    match item:
        case Binding(source):
            return "read" if f"'{source}'" in refused else "write"
        case Exchange(name, _, arguments) | Queue(name, arguments):
            if f"'{name}'" not in refused:
                return "write"  # where its dead letters, or what it cannot route, go
            forwards = arguments.keys() & {"x-dead-letter-exchange", "alternate-exchange"}
            return "configure or read" if forwards else "configure"
        case _:
            assert_never(item)


def difference(text: str) -> str:
    """Return RabbitMQ's 406 in words that say what to do about it."""
    parsed = _INEQUIVALENT.search(text)
    if parsed is None:
        return text
    argument, kind, name, ours, theirs = parsed.groups()
    return (
        f"{kind} '{name}' exists with {argument} = {theirs}, but this process declares {ours}; "
        f"change the setting to match, or drain and delete the {kind} so that it is made anew"
    )


@asynccontextmanager
async def _connection(settings: BrokerSettings) -> AsyncIterator[WiredConnection]:
    """A connection for tools, which workers have no use for."""
    tls_context(settings)  # a file that is no certificate is an error of the configuration
    named = [URL(url) for url in settings.urls]
    connection = None
    try:
        with lost_as_error():
            named, context = addresses_now(settings, "look")
            connection = await connect_to_one(named, settings.connect_timeout, context)
            yield connection
    except CONNECTION_ERRORS as error:
        server = named[-1] if connection is None else connection.url
        raise BrokerUnavailable(f"{shown(server)}: {explain(error)}") from None
    finally:
        if connection is not None:
            await close_quietly(connection, 1)
