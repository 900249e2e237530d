"""One queue being consumed: one channel at a time, each a generation of its own, restored for ever."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress

from aio_pika.abc import AbstractQueue
from aiormq.exceptions import ChannelNotFoundEntity

from ...events import BrokerUnavailable, Message, TopologyError
from ...telemetry import Attached, Detached, Emit, heed_cancellation, keep_running, report
from ..pause import RECONNECT, STEADY
from ..port import Delivery, OnDelivery
from .connection import LARGEST_PREFETCH, RPC, WiredChannel, close_quietly, untapped
from .deliveries import TRAVEL, Deliveries
from .errors import CONNECTION_ERRORS, Cancelled, explain
from .lifetime import lost_as_error, while_open, why_lost
from .link import Link


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
        self._name = queue
        self._prefetch = prefetch or LARGEST_PREFETCH
        self._on_delivery = on_delivery
        self._emit = emit
        self._redeclare = redeclare
        self._generation = 0
        self._channel: WiredChannel | None = None
        self._deliveries: Deliveries | None = None
        self._queue: AbstractQueue | None = None
        self._tag: str | None = None
        self._stopping = asyncio.Event()
        supervising = keep_running("consumer", self._supervise, emit)
        self._task = asyncio.create_task(supervising, name=f"holdfast consumer {queue}")

    @property
    def attached(self) -> bool:
        return self._tag is not None and self._channel is not None and not self._channel.is_closed

    @property
    def ended(self) -> bool:
        """Whether it was stopped and has no channel any more."""
        return self._stopping.is_set() and self._task.done()

    def is_current(self, delivery: Delivery) -> bool:
        deliveries = self._deliveries
        return deliveries is not None and delivery.generation == self._generation and not deliveries.is_closed

    async def ack(self, delivery: Delivery) -> bool:
        deliveries = self._deliveries
        return deliveries is not None and delivery.generation == self._generation and deliveries.ack(delivery.tag)

    async def give_back(self, delivery: Delivery) -> bool:
        deliveries = self._deliveries
        return deliveries is not None and delivery.generation == self._generation and deliveries.give_back(delivery.tag)

    async def stop(self, *, close: bool) -> None:
        self._stopping.set()
        channel, tag, self._tag = self._channel, self._tag, None
        if channel is not None and not channel.is_closed:
            with suppress(*CONNECTION_ERRORS), lost_as_error():
                if tag is not None and self._queue is not None:
                    with self._link.patience.answer() as seconds:
                        await while_open(channel, self._queue.cancel(tag, timeout=seconds))
                if close:
                    await self._leave(channel)
        if close:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            await self._discard()

    async def _leave(self, channel: WiredChannel) -> None:
        """Have the acks taken before the channel is closed, which discards queued frames: an answer on the same channel
        shows that they arrived."""
        if (deliveries := self._deliveries) is not None:
            deliveries.flush()
            with self._link.patience.answer() as seconds:
                await while_open(channel, channel.set_qos(self._prefetch, timeout=seconds))
            await asyncio.sleep(TRAVEL if deliveries.is_busy else 0)
        await self._discard(self._link.patience.seconds)

    async def _supervise(self) -> None:
        failures = 0
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            heed_cancellation()
            is_gone = False
            try:
                with lost_as_error():
                    lost = await self._attach()
                if self._stopping.is_set():  # attached too late: the deliveries go back with the channel
                    await self._discard()
                    return
                since = loop.time()
                error = explain(await _loss(lost))
                failures = 0 if loop.time() - since > STEADY else failures
            except (TopologyError, BrokerUnavailable) as refusal:
                error = str(refusal)
            except CONNECTION_ERRORS as cause:
                error, is_gone = explain(cause, right="read"), isinstance(cause, ChannelNotFoundEntity)
            except Exception as cause:  # noqa: BLE001 (whatever it is, another channel is tried)
                error = explain(cause)
                report("consumer", cause, self._emit)
            if is_gone:
                error = await self._restore(error)
            self._tag = None
            if self._stopping.is_set():
                return
            await self._discard()
            heed_cancellation()
            delay = RECONNECT.seconds(failures, random.random())
            failures += 1
            self._emit(Detached(self._name, error, delay))
            await asyncio.sleep(delay)

    async def _attach(self) -> "asyncio.Future[None]":
        """Consume on a new channel, with a new consumer tag, as a new generation. Returns a future that ends when the
        broker takes it away."""
        await self._link.try_out(self._name, self._prefetch)
        connection = await self._link.connection()
        channel = self._channel = await connection.open_channel()
        self._generation += 1
        generation, number = self._generation, channel.below.number
        lost = channel.closing
        channel.below.on_consumer_cancel_callbacks.add(lambda _: _end(lost))
        await while_open(connection, channel.set_qos(self._prefetch, timeout=RPC))

        early: list[Delivery] = []  # a broker delivers before its answer was read
        hand_on: OnDelivery = early.append

        def receive(message: Message, tag: int, redelivered: bool) -> None:
            hand_on(Delivery(message, self._name, tag, generation, redelivered, self))

        deliveries = self._deliveries = Deliveries(receive, connection.wire.transport, number)
        channel.closing.add_done_callback(deliveries.close)
        connection.wire.splitter.tap(number, deliveries)
        queue = self._queue = await channel.get_queue(self._name, ensure=False)
        with self._link.asking(self._name):
            self._tag = await while_open(connection, queue.consume(untapped, timeout=RPC))
        heed_cancellation()
        self._emit(Attached(self._name, generation))
        if not self._stopping.is_set():
            hand_on = self._on_delivery
            for delivery in early:
                hand_on(delivery)
        return lost

    async def _restore(self, error: str) -> str:
        """The queue is gone: declare the topology again, where this process may."""
        try:
            with lost_as_error():
                await self._redeclare()
        except (TopologyError, *CONNECTION_ERRORS) as cause:
            return f"{error}; declaring it again failed: {explain(cause)}"
        return error

    async def _discard(self, timeout: float = 2) -> None:
        channel, self._channel = self._channel, None
        deliveries, self._deliveries = self._deliveries, None
        if deliveries is not None:
            deliveries.flush()
            deliveries.close()
        if channel is not None:
            await close_quietly(channel, min(timeout, self._link.patience.seconds))


def _end(lost: "asyncio.Future[None]") -> None:
    if not lost.done():
        lost.set_exception(Cancelled("the broker cancelled the consumer; was the queue deleted?"))


async def _loss(lost: "asyncio.Future[None]") -> BaseException:
    await asyncio.wait({lost})
    return why_lost(lost)
