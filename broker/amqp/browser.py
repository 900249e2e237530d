"""Reading a queue without taking anything off it.

A consumer with manual acks is lent every message; when its channel goes, however it goes, messages that were not acked
are back in the queue. For the order to be the old one, on quorum queues as well (tried on 3.10.8, 4.0.5 and 4.3.6, with
the channel closed and with the connection cut):

- one consumer after the other, each with the largest prefetch there is, their tags in alphabetical order. `basic.get`
  makes a consumer of each message, and up to 4.0 a queue takes back from more than 32 consumers in no order;
- one reader of a queue at a time: two would be given every other message. An exclusive queue on the reader's own
  connection is the lock, gone with the connection (quorum queues take no heed of an exclusive consumer);
- nothing is returned one by one: what is returned while a consumer reads is delivered to it again.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from ssl import SSLContext
from typing import Any

from aio_pika.abc import AbstractQueue
from aiormq.exceptions import (
    ChannelLockedResource,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    ConnectionInternalError,
    ConnectionNotImplemented,
)
from yarl import URL

from ...events import BrokerUnavailable, Message, QueueInUse, TopologyMissing
from ...telemetry import mark_heard
from ..port import Depth, Held, OnHeld
from .connection import LARGEST_PREFETCH, WiredChannel, WiredConnection, close_quietly, connect_to_one, untapped
from .deliveries import Deliveries
from .errors import CONNECTION_ERRORS, explain
from .lifetime import lost_as_error

CONSUMERS = 31
_RPC = 300.0  # seconds for an answer: a queue that lends or takes back a hundred thousand messages is busy with it
_LOOK_AGAIN = 30.0
"""Seconds without a message after which the queue is asked whether there is more. What is lent counts as gone from it
before it arrives: of 65,535 letters the first came after 8 s."""
_FIRST_LOOK = 2.0  # seconds without a first message after which the queue may be a stream
_LOOKS = 250  # how often the queue is asked without more having come back
_GONE_WITHIN = 1.0
_LAST = "reader.last"  # what it is lent came after all the others, and is returned after them
_COUNTERS = ("x-delivery-count", "x-acquired-count")


class AmqpBrowser:
    """See `broker.port.Browser`. It has its own connection, which also holds the lock."""

    def __init__(self, connection: WiredConnection, queue: str, on_held: OnHeld, *, prefetch: int) -> None:
        self._connection = connection
        self._queue = queue
        self._on_held = on_held
        self._prefetch = prefetch
        self._channel: WiredChannel
        self._deliveries: Deliveries
        self._source: AbstractQueue
        self._wanted = 0
        self._lent = 0
        self._removed = 0
        self._consumers = 0
        self._is_closing = False
        self._early: list[tuple[Message, int]] | None = []
        self._more = asyncio.Event()
        self._complete = asyncio.Event()
        self._next: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Lock the queue and begin to read it."""
        channel = self._channel = await self._connection.open_channel()
        try:
            await self._lock()
            depth = await self._at_rest(channel)
        except ChannelNotFoundEntity:
            raise TopologyMissing(f"there is no queue {self._queue!r}") from None
        if depth.consumers:
            raise QueueInUse(f"{self._queue} has {depth.consumers} consumer(s): it is not a queue of dead letters")
        self._wanted = min(depth.ready, CONSUMERS * self._prefetch)
        self._deliveries = Deliveries(self._receive, self._connection.wire.transport, channel.below.number)
        channel.closing.add_done_callback(self._deliveries.close)
        self._connection.wire.splitter.tap(channel.below.number, self._deliveries)
        self._source = await channel.get_queue(self._queue, ensure=False)
        await self._flush()
        if self._wanted:
            await self._consume()
        else:
            self._complete.set()
        asyncio.get_running_loop().call_soon(self._lend_early)

    async def caught_up(self) -> int:
        complete, lost = asyncio.ensure_future(self._complete.wait()), self._channel.closing
        either: set[asyncio.Future[Any]] = {complete, lost}
        try:
            while not complete.done():
                self._more.clear()
                if not self._lent:
                    await asyncio.wait(either, timeout=_FIRST_LOOK, return_when=asyncio.FIRST_COMPLETED)
                    await self._refuse_a_stream()
                if not complete.done():
                    await asyncio.wait(either, timeout=_LOOK_AGAIN, return_when=asyncio.FIRST_COMPLETED)
                if lost.done():
                    raise BrokerUnavailable(f"the connection was lost while {self._queue} was read")
                if self._next is not None and self._next.done():
                    self._next.result()
                if not complete.done() and not self._more.is_set() and await self._is_drained():
                    break  # messages that were there have expired, or were taken, before they could be lent
        finally:
            complete.cancel()
            lost.cancel()
        return self._lent

    async def remove(self, *tags: int) -> bool:
        acked = [self._deliveries.ack(tag) for tag in tags]
        self._deliveries.flush()
        if not all(acked):
            return False
        self._removed += len(tags)
        try:
            await self._flush()
        except CONNECTION_ERRORS:
            return False
        return True

    async def close(self) -> bool:
        """Have the acks taken, return the rest, and let go of the lock once the queue has it all back.

        Where this is cancelled the lock goes at once, with the connection.
        """
        held, is_sure = self._lent + len(self._early or ()) - self._removed, not self._removed
        self._is_closing, self._early = True, None
        if self._next is not None:
            self._next.cancel()
        try:
            with lost_as_error():
                await self._have_acks_taken()
                is_sure = True
                self._deliveries.close()
                await close_quietly(self._channel, _RPC)
                await self._until_returned(held)
        except CONNECTION_ERRORS:
            pass
        finally:
            await close_quietly(self._connection, 5)
        return is_sure

    async def _lock(self) -> None:
        """Lock the queue. The lock of a reader that was killed a moment ago takes a moment to go."""
        deadline = asyncio.get_running_loop().time() + _GONE_WITHIN
        while True:
            channel = await self._connection.open_channel()
            try:
                await channel.declare_queue(f"{self._queue}.reader", exclusive=True, auto_delete=True, timeout=_RPC)
                return
            except ChannelLockedResource:
                if asyncio.get_running_loop().time() > deadline:
                    busy = f"{self._queue} is being read or worked on by another tool; try again later"
                    raise QueueInUse(busy) from None
            await asyncio.sleep(0.05)

    async def _at_rest(self, channel: WiredChannel) -> Depth:
        """Return the depth under the lock. Consumers of a reader that was killed a moment ago take a moment to go."""
        deadline = asyncio.get_running_loop().time() + _GONE_WITHIN
        while True:
            depth, is_late = await depth_of(channel, self._queue), asyncio.get_running_loop().time() > deadline
            if depth.consumers:
                if is_late:
                    return depth
            elif depth.ready or await self._gives_nothing():
                return depth
            elif is_late:
                raise BrokerUnavailable(
                    f"RabbitMQ counts no messages in {self._queue}, which has some; try again later"
                )
            await asyncio.sleep(0.05)

    async def _gives_nothing(self) -> bool:
        """Ask the queue for a message, which goes back. RabbitMQ counts none in a queue without a leader; such a queue
        answers this with an error."""
        channel = await self._connection.open_channel()
        try:
            queue = await channel.get_queue(self._queue, ensure=False)
            return await queue.get(fail=False, timeout=_RPC) is None
        except ConnectionNotImplemented:
            raise self._is_a_stream() from None
        except ConnectionInternalError as error:
            raise BrokerUnavailable(
                f"cannot read {self._queue}: it has no leader, as just after a start of RabbitMQ, or while most of its "
                f"members are away; try again later ({explain(error)})"
            ) from None
        finally:
            await close_quietly(channel, 5)

    def _is_a_stream(self) -> QueueInUse:
        return QueueInUse(f"{self._queue} is a stream: letters are read from queues alone")

    async def _consume(self) -> None:
        """Start the next consumer. The tags are in order: their messages go back in that order."""
        self._consumers += 1
        tag = self._tag(self._consumers)
        await self._source.consume(untapped, consumer_tag=tag, timeout=_RPC)

    def _tag(self, number: int) -> str:
        return f"reader.{number:04d}"

    def _receive(self, message: Message, tag: int, redelivered: bool) -> None:
        if self._early is not None:  # nothing is lent before the caller has its browser
            self._early.append((message, tag))
        elif not self._is_closing:  # otherwise it goes back with the channel
            self._lend(message, tag)

    def _lend_early(self) -> None:
        early, self._early = self._early or (), None
        for message, tag in early:
            self._lend(message, tag)

    def _lend(self, message: Message, tag: int) -> None:
        headers = message.headers
        count = headers.get(_COUNTERS[0])
        if any(name in headers for name in _COUNTERS):
            message = replace(message, headers={n: v for n, v in headers.items() if n not in _COUNTERS})
        self._lent += 1
        self._more.set()
        self._on_held(Held(message, tag, count if type(count) is int else 0))
        if self._lent == self._wanted:
            self._complete.set()
        if self._lent == self._prefetch * self._consumers and self._consumers < CONSUMERS:
            self._next = asyncio.create_task(self._consume())
            self._next.add_done_callback(mark_heard)  # it fails with the connection, whose loss is raised

    async def _refuse_a_stream(self) -> None:
        """Raise `QueueInUse` for a stream, which lends nothing that was in it before and of which nothing can be taken.
        What kind a queue is RabbitMQ says where another kind is declared."""
        if self._lent or self._channel.closing.done():
            return
        probe = await self._connection.open_channel()
        try:
            await probe.declare_queue(self._queue, durable=True, arguments={"x-queue-type": "classic"}, timeout=_RPC)
        except ChannelPreconditionFailed as error:
            if "'stream'" in str(error):
                raise self._is_a_stream() from None
        except CONNECTION_ERRORS:  # nor is a user who may not declare it told
            pass

    async def _is_drained(self) -> bool:
        try:
            with lost_as_error():
                return not (await depth_of(self._channel, self._queue)).ready and await self._gives_nothing()
        except CONNECTION_ERRORS as error:
            raise BrokerUnavailable(f"lost while {self._queue} was read: {explain(error)}") from None

    async def _flush(self) -> None:
        """Wait for an answer on the same channel, which shows that the acks before it arrived."""
        with lost_as_error():
            await self._channel.set_qos(self._prefetch, timeout=_RPC)

    async def _have_acks_taken(self) -> None:
        """Wait until the queue has the acks. RabbitMQ's channel has 32 of them on their way to a quorum queue; later
        ones wait in the channel, and would be gone with it (seen on 3.10.8: of 134 acks 101 were lost).

        Each of two calls that the queue itself answers is behind the acks. The answer to the first may overtake the
        queue's answer to the acks, the answer to the second cannot.
        """
        for number in range(1, self._consumers + 1):
            await self._source.cancel(self._tag(number), timeout=_RPC)
        if self._removed:
            await self._source.consume(untapped, consumer_tag=_LAST, timeout=_RPC)
            await self._source.cancel(_LAST, timeout=_RPC)
            await self._flush()

    async def _until_returned(self, held: int) -> None:
        channel = await self._connection.open_channel()
        ready = looks = 0
        while ready < held and looks < _LOOKS:
            before, ready = ready, (await depth_of(channel, self._queue)).ready
            looks = looks + 1 if ready == before else 0
            await asyncio.sleep(0.02)


async def open_browser(
    urls: Sequence[URL],
    queue: str,
    on_held: OnHeld,
    *,
    connect_timeout: float,
    prefetch: int = LARGEST_PREFETCH,
    tls: SSLContext | None = None,
) -> AmqpBrowser:
    """See `Broker.browse`. Reads from the first of `urls` that answers; one consumer holds `prefetch` at most."""
    connection = None
    try:
        with lost_as_error():
            named = [url.update_query(name="holdfast browse") for url in urls]
            connection = await connect_to_one(named, connect_timeout, tls)
            browser = AmqpBrowser(connection, queue, on_held, prefetch=prefetch)
            await browser.start()
    except BaseException as error:
        if connection is not None:
            await close_quietly(connection, 1)
        if not isinstance(error, CONNECTION_ERRORS):
            raise
        right = "configure" if f"'{queue}.reader'" in str(error) else "read"
        raise BrokerUnavailable(f"cannot read {queue}: {explain(error, right=right)}") from None
    return browser


async def depth_of(channel: WiredChannel, queue: str) -> Depth:
    """Return how much is in a queue. Raises `ChannelNotFoundEntity`, which closes the channel."""
    answer = (await channel.declare_queue(queue, passive=True, timeout=_RPC)).declaration_result
    return Depth(answer.message_count or 0, answer.consumer_count or 0)
