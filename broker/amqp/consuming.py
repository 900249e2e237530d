"""One queue being consumed: one channel at a time, each a generation of its own, restored for ever."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress

from aiormq import Channel
from aiormq.abc import DeliveredMessage
from aiormq.exceptions import ChannelNotFoundEntity

from ...events import BrokerUnavailable, Message, TopologyError
from ...telemetry import Attached, Detached, Emit
from ..port import Delivery, OnDelivery
from .deliveries import Deliveries
from .explain import explain
from .link import STEADY, Link, full_jitter, open_channel
from .losses import CONNECTION_ERRORS, close_quietly, heed_cancellation, lost_as_error, while_open
from .settling import OneByOne, Settling, Together
from .translate import from_delivered
from .wire import TappedConnection

_RPC = 10.0  # seconds an answer to a method may take

# RabbitMQ's channel has some 32 acks and rejects on their way to a quorum queue at once. Those that come after wait in
# the channel for the first to be written, no answer tells when that is, and what still waits dies with the channel:
# of 64 acks at one time 31 came back in every fourth trial (3.10.8, 4.0.5, 4.3.6). So a busy channel lives on a little.
_UNDER_WAY = 32
_TRAVEL = 0.2  # seconds


class AmqpConsumer:
    """See `broker.port.Consumer`."""

    def __init__(
        self,
        link: Link,
        queue: str,
        prefetch: int,
        on_delivery: OnDelivery,
        *,
        emit: Emit,
        redeclare: Callable[[], Awaitable[None]],
    ) -> None:
        self._link = link
        self._queue = queue
        self._prefetch = prefetch
        self._on_delivery = on_delivery
        self._emit = emit
        self._redeclare = redeclare
        self._generation = 0
        self._channel: Channel | None = None
        self._settling: Settling | None = None
        self._untap: Callable[[], None] = _nothing
        self._tag: str | None = None
        self._settled: deque[float] = deque(maxlen=_UNDER_WAY)
        self._stopping = asyncio.Event()
        self._task = asyncio.create_task(self._supervise(), name=f"holdfast consumer {queue}")

    @property
    def attached(self) -> bool:
        return self._tag is not None and self._channel is not None and not self._channel.is_closed

    @property
    def ended(self) -> bool:
        """Whether it was stopped and has no channel any more."""
        return self._stopping.is_set() and self._task.done()

    def is_current(self, delivery: Delivery) -> bool:
        return delivery.generation == self._generation and self._channel is not None and not self._channel.is_closed

    async def ack(self, delivery: Delivery) -> bool:
        if self._settling is None or not self.is_current(delivery):
            return False
        self._settled.append(asyncio.get_running_loop().time())
        return await self._settling.ack(delivery.tag)

    async def give_back(self, delivery: Delivery) -> bool:
        if self._settling is None or not self.is_current(delivery):
            return False
        self._settled.append(asyncio.get_running_loop().time())
        return await self._settling.give_back(delivery.tag)

    async def stop(self, *, close: bool) -> None:
        self._stopping.set()
        channel, tag, self._tag = self._channel, self._tag, None
        if channel is not None and not channel.is_closed:
            with suppress(*CONNECTION_ERRORS), lost_as_error:
                if tag is not None:
                    await while_open(channel, channel.basic_cancel(tag, timeout=_RPC))
                if close and self._settling is not None:
                    self._settling.flush()
                    # Closing discards queued frames; an answer on the same channel shows that the acks arrived.
                    await while_open(channel, channel.basic_qos(prefetch_count=self._prefetch, timeout=_RPC))
                    await asyncio.sleep(_TRAVEL if self._is_busy() else 0)
                    await channel.close(timeout=_RPC)
        if close:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._channel = None
            self._untap()

    def _is_busy(self) -> bool:
        """Whether so much was settled a moment ago that some of it may still wait in the broker's channel."""
        now = asyncio.get_running_loop().time()
        return len(self._settled) == _UNDER_WAY and now - self._settled[0] < _TRAVEL

    async def _supervise(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            try:
                with lost_as_error:
                    lost = await self._attach()
                if self._stopping.is_set():  # attached too late: what came goes back with the channel
                    await self._discard()
                    return
                since = asyncio.get_running_loop().time()
                error = explain(await _loss(lost))
                failures = 0 if asyncio.get_running_loop().time() - since > STEADY else failures
            except (TopologyError, BrokerUnavailable) as refusal:
                error = str(refusal)
            except CONNECTION_ERRORS as cause:
                error = explain(cause, right="read")
                if isinstance(cause, ChannelNotFoundEntity):
                    error = await self._restore(error)
            self._tag = None
            if self._stopping.is_set():
                return
            await self._discard()
            delay = full_jitter(failures)
            failures += 1
            self._emit(Detached(self._queue, error, delay))
            await asyncio.sleep(delay)

    async def _attach(self) -> "asyncio.Future[None]":
        """A new channel, a new consumer tag, a new generation. The future ends when the broker takes it away."""
        connection = await self._link.connection()
        channel = await open_channel(connection, confirms=False)
        self._generation += 1
        self._channel = channel
        generation = self._generation
        lost = channel.closing
        channel.on_consumer_cancel_callbacks.add(lambda _: _end(lost))
        await while_open(connection, channel.basic_qos(prefetch_count=self._prefetch, timeout=_RPC))

        early: list[Delivery] = []  # a broker delivers before its answer was read
        hand_on: OnDelivery = early.append

        def deliver(message: Message, tag: int, redelivered: bool) -> None:
            hand_on(Delivery(message, self._queue, tag, generation, redelivered, self))

        async def deliver_one(delivered: DeliveredMessage) -> None:
            deliver(from_delivered(delivered), delivered.delivery_tag or 0, bool(delivered.redelivered))

        if isinstance(connection, TappedConnection):
            wire, number = connection.wire, channel.number
            deliveries = Deliveries(deliver)
            self._settling = Together(wire, channel, deliveries)
            wire.tap(number, deliveries)
            self._untap = lambda: wire.untap(number)
        else:
            self._settling = OneByOne(channel)
        answer = await while_open(connection, channel.basic_consume(self._queue, deliver_one, timeout=_RPC))
        heed_cancellation()
        self._tag = answer.consumer_tag
        self._emit(Attached(self._queue, generation))
        if not self._stopping.is_set():
            hand_on = self._on_delivery
            for delivery in early:
                hand_on(delivery)
        return lost

    async def _restore(self, error: str) -> str:
        """The queue is gone: declare the topology again, where this process may."""
        try:
            with lost_as_error:
                await self._redeclare()
        except (TopologyError, *CONNECTION_ERRORS) as cause:
            return f"{error}; declaring it again failed: {explain(cause)}"
        return error

    async def _discard(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            await close_quietly(channel, 2)
        self._untap()


def _nothing() -> None:
    """No channel is tapped."""


class Cancelled(ConnectionError):
    """The broker cancelled the consumer: its queue was deleted, its node failed, or a time-out struck."""


def _end(lost: "asyncio.Future[None]") -> None:
    if not lost.done():
        lost.set_exception(Cancelled("the broker cancelled the consumer; was the queue deleted?"))


async def _loss(lost: "asyncio.Future[None]") -> BaseException:
    await asyncio.wait({lost})
    if lost.cancelled():
        return ConnectionError("the channel was closed")
    return lost.exception() or ConnectionError("the channel was closed")
