"""The tape: a stream queue that is bound to the exchange of events, and keeps them for as long as its retention says.

A stream is read over AMQP like a queue, without a plugin. Nothing is taken off it, each message has an offset, and past
messages run into those that come. RabbitMQ closes the connection of a reader without acks and of one that rejects.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from ..config import BrokerSettings
from ..events import BrokerUnavailable, ConfigurationError, Message, uuid7
from . import ladder
from .port import STREAM_OFFSET, Attachment, Broker, Offset
from .topology import Binding, Queue, Topology, events_exchange

MARK = "holdfast.mark"
"""The type of a message that says how far a stream went at some time. It is no event."""

_PREFETCH = 2_000


def events_topology(settings: BrokerSettings) -> Topology:
    """Return the exchange that events are published to, and the stream that keeps them where there is one."""
    topology = events_exchange(settings.exchange)
    if settings.stream is None:
        return topology
    kept: dict[str, Any] = {"x-max-age": f"{settings.stream_age}s", "x-max-length-bytes": settings.stream_bytes}
    stream = Queue(settings.stream, {"x-queue-type": "stream", **kept})
    return topology + Topology(queues=(stream,), bindings=(Binding(settings.exchange, stream.name, "#"),))


def delayed_to_stream(settings: BrokerSettings) -> Topology:
    """Return the binding by which delayed events come to the stream, once they are due."""
    if settings.stream is None:
        return Topology()
    return Topology(bindings=(Binding(ladder.OUT, settings.stream, ladder.delayed("#")),))


def stream_of(settings: BrokerSettings) -> str:
    """Return the name of the stream. Raises `ConfigurationError` where there is none."""
    if settings.stream is None:
        raise ConfigurationError("HOLDFAST_BROKER__STREAM is not set: which stream?")
    return settings.stream


@dataclass(frozen=True, slots=True)
class Taped:
    """A message of a stream, with its offset there."""

    offset: int
    message: Message


class Scan:
    """Reads a stream: the messages from an offset on, then those that come, in order. See `scanning`."""

    def __init__(self, stream: str) -> None:
        self._stream = stream
        self._attachment: Attachment
        self._came: deque[tuple[Taped, int]] = deque()
        self._more = asyncio.Event()
        self._lost: str | None = None

    async def open(self, broker: Broker, offset: Offset) -> None:
        """Begin to read at an offset."""
        self._attachment = await broker.attach(
            self._stream, prefetch=_PREFETCH, on_taken=self._take, on_lost=self._lose, offset=offset
        )

    async def read(self, most: int) -> list[Taped]:
        """Return the next messages, at least one, at most so many: it waits until there is one.

        Raises `BrokerUnavailable` once the connection is lost.
        """
        while not self._came:
            if self._lost is not None:
                raise BrokerUnavailable(f"lost while {self._stream} was read: {self._lost}")
            self._more.clear()
            await self._more.wait()
        taped = list[Taped]()
        while self._came and len(taped) < most:
            one, tag = self._came.popleft()
            self._attachment.remove(tag)  # makes room for another
            taped.append(one)
        return taped

    async def close(self) -> None:
        """Read no more."""
        await self._attachment.close()

    def _take(self, message: Message, tag: int, redelivered: bool) -> None:
        headers = {name: value for name, value in message.headers.items() if name != STREAM_OFFSET}
        self._came.append((Taped(message.headers[STREAM_OFFSET], replace(message, headers=headers)), tag))
        self._more.set()

    def _lose(self, reason: str) -> None:
        self._lost = reason
        self._more.set()


@asynccontextmanager
async def scanning(broker: Broker, stream: str, offset: Offset) -> AsyncIterator[Scan]:
    """Read a stream within a block. Raises `TopologyMissing`, `BrokerUnavailable`."""
    scan = Scan(stream)
    await scan.open(broker, offset)
    try:
        yield scan
    finally:
        await scan.close()


def is_mark(message: Message) -> bool:
    """Return whether a message of a stream is a mark."""
    return message.type == MARK and not message.exchange


async def mark(broker: Broker, stream: str, timeout: float) -> str:
    """Write a mark to a stream, behind all that is on it. Returns its id. Raises `PublishError`."""
    message = Message(b"", "", stream, message_id=uuid7(), type=MARK)
    await broker.publish(message, timeout=timeout)
    return message.message_id or ""
