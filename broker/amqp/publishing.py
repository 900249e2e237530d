"""Confirmed publishing: mandatory, persistent, bounded, on one channel per exchange.

A publish to a missing exchange closes its channel; with a channel of its own for each exchange it hurts no other.
"""

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager

import aiormq
from aiormq import Channel
from aiormq.exceptions import ChannelAccessRefused, ChannelNotFoundEntity, ChannelPreconditionFailed, DeliveryError

from ...events import Message, NotConnected, PublishError, PublishRefused, PublishTimeout, TooLarge, Unroutable
from ..size import check_properties, headers_size
from .explain import explain
from .link import CONNECTION_ERRORS, Link, close_quietly, lost_as_error, open_channel, while_open
from .translate import to_properties

IN_FLIGHT = 500
"""Publishes with a time limit that may wait for their confirm at once. Copies have none: prefetch bounds them."""

_MESSAGE_SIZE = re.compile(r"message size (\d+)")


class Publishing:
    """Publishes on the connection of one link."""

    def __init__(self, link: Link, *, header_budget: int) -> None:
        self._link = link
        self._header_budget = header_budget
        self._channels: dict[str, asyncio.Task[Channel]] = {}
        self._slots = asyncio.Semaphore(IN_FLIGHT)

    async def publish(self, message: Message, timeout: float | None) -> None:
        """See `Broker.publish`."""
        self._check_size(message)
        if timeout is None:
            await self._until_known(message)
            return
        sent = False
        try:
            async with asyncio.timeout(timeout):
                await self._link.connection()
                async with self._slots:
                    sent = True
                    await self._until_known(message)
        except TimeoutError:
            if sent or self._link.connected:
                raise PublishTimeout(
                    f"no confirm for {_address(message)} within {timeout:g} s; it may or may not be in a queue"
                ) from None
            raise NotConnected(
                f"not sent to {_address(message)}: no connection to {self._link} within {timeout:g} s "
                f"({self._link.last_error})"
            ) from None

    async def _until_known(self, message: Message) -> None:
        """Publish until the broker said yes or no; whatever a lost channel left open is sent again."""
        while True:
            try:
                with lost_as_error():
                    channel = await self._channel(message.exchange)
                    with _verdicts(message):
                        await self._send(channel, message)
                return
            except CONNECTION_ERRORS as error:
                self._link.last_error = explain(error)
                await asyncio.sleep(0.05)

    async def _send(self, channel: Channel, message: Message) -> None:
        publish = channel.basic_publish(
            message.body,
            exchange=message.exchange,
            routing_key=message.routing_key,
            properties=to_properties(message),
            mandatory=True,
            wait=False,
        )
        if channel.connection.write_queue.full():
            await while_open(channel, publish)
        else:
            await publish

    async def _channel(self, exchange: str) -> Channel:
        """The open channel of an exchange; opening is shared by all who wait for it."""
        task = self._channels.get(exchange)
        if task is None or (task.done() and (task.cancelled() or task.exception() or task.result().is_closed)):
            task = asyncio.create_task(self._open(exchange))
            self._channels[exchange] = task
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(task)

    async def _open(self, exchange: str) -> Channel:
        connection = await self._link.connection()
        channel = await open_channel(connection, confirms=True)
        if exchange:
            # Asked before anything is in flight: found out by a publish, it would close a busy channel.
            try:
                await channel.exchange_declare(exchange, passive=True, timeout=10)
            except ChannelNotFoundEntity:
                raise Unroutable(f"exchange {exchange!r} does not exist on {self._link}") from None
        return channel

    def _check_size(self, message: Message) -> None:
        try:
            size = headers_size(message.headers)
            check_properties(message)
        except ValueError as error:
            raise PublishError(f"{error}; not sent to {_address(message)}") from None
        if size > self._header_budget:
            raise TooLarge(f"the headers for {_address(message)} take {size} bytes; at most {self._header_budget} go")
        if len(message.routing_key.encode()) > 255:
            raise TooLarge(f"the routing key {message.routing_key[:40]!r}... has more than 255 bytes")

    async def close(self) -> None:
        for task in self._channels.values():
            if task.done() and not task.cancelled() and not task.exception():
                await close_quietly(task.result(), 2)
            else:
                task.cancel()
        self._channels.clear()


@contextmanager
def _verdicts(message: Message) -> Iterator[None]:
    """Turns what the broker said of this message into our errors; what it said of others passes as a lost channel."""
    try:
        yield
    except aiormq.exceptions.PublishError:
        raise Unroutable(f"no queue is bound for {_address(message)}") from None
    except DeliveryError:
        raise PublishRefused(f"the broker refused {_address(message)} (basic.nack); is a queue full?") from None
    except ChannelNotFoundEntity as error:
        if f"'{message.exchange}'" in str(error):
            raise Unroutable(f"exchange {message.exchange!r} does not exist") from None
        raise
    except ChannelAccessRefused as error:
        raise PublishRefused(f"no permission to publish {_address(message)}: {explain(error)}") from None
    except ChannelPreconditionFailed as error:
        size = _MESSAGE_SIZE.search(str(error))
        if size is not None and int(size[1]) == len(message.body):
            raise TooLarge(f"the broker takes no body of {size[1]} bytes: {explain(error)}") from None
        raise


def _address(message: Message) -> str:
    return (
        f"{message.routing_key!r} on exchange {message.exchange!r}"
        if message.exchange
        else f"queue {message.routing_key!r}"
    )
