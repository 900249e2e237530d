"""Confirmed publishing: mandatory, persistent, bounded, on one channel per exchange, or queue published to directly.

A publish to a missing exchange closes its channel, and one to a quorum queue without a leader blocks it; with a channel
of its own for each it hurts no other.
"""

import asyncio
import re
from typing import assert_never

from aiormq.exceptions import AMQPChannelError, ChannelAccessRefused, ChannelNotFoundEntity, ChannelPreconditionFailed

from ...events import (
    Message,
    NotConnected,
    NotPermitted,
    PublishError,
    PublishRefused,
    PublishTimeout,
    TooLarge,
    Unroutable,
)
from ..countdown import Limits
from ..size import header_budget
from .explain import explain
from .link import Link, open_channel
from .losses import CONNECTION_ERRORS, lost_as_error, while_open
from .packing import Packed, pack
from .sending import Sending, sending
from .wire import TappedConnection

IN_FLIGHT = 500
"""Publishes with a time limit that may wait for their confirm at once. Copies have none: prefetch bounds them."""

_MESSAGE_SIZE = re.compile(r"message size (\d+)")
_TOPIC = re.compile(r"access to topic '(.*)' in exchange", re.DOTALL)


class Publishing:
    """Publishes on the connection of one link."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._channels: dict[tuple[str, str], asyncio.Task[Sending]] = {}
        self._slots = asyncio.Semaphore(IN_FLIGHT)
        self._limits = Limits()

    async def publish(self, message: Message, timeout: float | None) -> None:
        """See `Broker.publish`."""
        packed = self._pack(message)
        if timeout is None:
            await self._until_known(message, packed)
            return
        sent = False
        try:
            with self._limits.limit(timeout):
                if not self._link.connected:
                    await self._link.connection()
                async with self._slots:
                    sent = True
                    await self._until_known(message, packed)
        except TimeoutError:
            if sent or self._link.connected:
                raise PublishTimeout(
                    f"no confirm for {_address(message)} within {timeout:g} s; it may or may not be in a queue"
                ) from None
            raise NotConnected(
                f"not sent to {_address(message)}: no connection to {self._link} within {timeout:g} s "
                f"({self._link.last_error})"
            ) from None

    async def _until_known(self, message: Message, packed: Packed) -> None:
        """Publish until the broker said yes or no; whatever a lost channel left open is sent again."""
        while True:
            try:
                with lost_as_error:
                    channel = await self._channel(message)
                    self._check(message, packed)  # the broker says only now what it takes
                    verdict = await channel.send(message, packed)
                break
            except AMQPChannelError as error:
                _raise_if_meant(message, error)
                self._link.last_error = explain(error)
            except CONNECTION_ERRORS as error:
                self._link.last_error = explain(error)
            await asyncio.sleep(0.05)
        match verdict:
            case "confirmed":
                return
            case "unroutable":
                raise Unroutable(f"no queue is bound for {_address(message)}")
            case "refused":
                raise PublishRefused(f"the broker refused {_address(message)} (basic.nack); is a queue full?")
            case _:
                assert_never(verdict)

    async def _channel(self, message: Message) -> Sending:
        """The open channel of where it goes; opening is shared by all who wait for it."""
        place = (message.exchange, "" if message.exchange else message.routing_key)
        task = self._channels.get(place)
        if task is not None and task.done():
            if not task.cancelled() and not task.exception() and not task.result().is_closed:
                return task.result()
            task = None
        if task is None:
            task = asyncio.create_task(self._open(message.exchange))
            self._channels[place] = task
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(task)

    async def _open(self, exchange: str) -> Sending:
        connection = await self._link.connection()
        channel = await open_channel(connection, confirms=True)
        if exchange:
            # Asked before anything is in flight: found out by a publish, it would close a busy channel.
            try:
                await while_open(connection, channel.exchange_declare(exchange, passive=True, timeout=10))
            except ChannelNotFoundEntity:
                raise Unroutable(f"exchange {exchange!r} does not exist on {self._link}") from None
        return sending(channel, connection.wire if isinstance(connection, TappedConnection) else None)

    def _pack(self, message: Message) -> Packed:
        if len(message.routing_key.encode(errors="replace")) > 255:
            raise TooLarge(f"the routing key {message.routing_key[:40]!r}... has more than 255 bytes")
        try:
            packed = pack(message)
        except ValueError as error:
            raise PublishError(f"{error}; not sent to {_address(message)}") from None
        self._check(message, packed)
        return packed

    def _check(self, message: Message, packed: Packed) -> None:
        if packed.headers > (budget := header_budget(self._link.frame_max)):
            raise TooLarge(f"the headers for {_address(message)} take {packed.headers} bytes; at most {budget} go")

    async def close(self) -> None:
        self._limits.close()
        tasks, self._channels = self._channels, {}
        opened = [task for task in tasks.values() if task.done() and not task.cancelled() and not task.exception()]
        for task in tasks.values():
            task.cancel()  # those that are still opening
        await asyncio.gather(*(task.result().close() for task in opened))


def _raise_if_meant(message: Message, error: AMQPChannelError) -> None:
    """Raise what closed the channel as an error of ours where it was for this message; for the others it is lost."""
    match error:
        case ChannelNotFoundEntity() if f"'{message.exchange}'" in str(error):
            raise Unroutable(f"exchange {message.exchange!r} does not exist") from None
        case ChannelAccessRefused():
            topic = _TOPIC.search(str(error))  # of several types on one exchange the user may lack one
            if topic is None or topic[1] == message.routing_key:
                told = explain(error, right="write")
                raise NotPermitted(f"no right to publish {_address(message)}: {told}") from None
        case ChannelPreconditionFailed():
            size = _MESSAGE_SIZE.search(str(error))
            if size is not None and int(size[1]) == len(message.body):
                raise TooLarge(f"the broker takes no body of {size[1]} bytes: {explain(error)}") from None
        case _:
            pass


def _address(message: Message) -> str:
    return (
        f"{message.routing_key!r} on exchange {message.exchange!r}"
        if message.exchange
        else f"queue {message.routing_key!r}"
    )
