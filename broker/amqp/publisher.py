"""Confirmed publishing: mandatory, persistent, bounded, on one channel per exchange, or queue published to directly.

A publish to a missing exchange closes its channel, and one to a quorum queue without a leader blocks it; with a channel
of its own for each it hurts no other.
"""

import asyncio
from typing import TypeAlias, assert_never

from aiormq.exceptions import AMQPChannelError, ChannelNotFoundEntity

from ...events import Message, NotConnected, PublishRefused, PublishTimeout, Unroutable
from ..codec import Packed, address, pack
from .confirms import PublishChannel
from .connection import RPC
from .errors import CONNECTION_ERRORS, explain, publish_error
from .lifetime import lost_as_error, while_open
from .link import Link

IN_FLIGHT = 500
"""Publishes with a time limit that may wait for their confirm at once. Copies have none: prefetch bounds them."""

Target: TypeAlias = tuple[str, str]
"""An exchange, or the default exchange and a queue."""


class AmqpPublisher:
    """Publishes on the connection of one link."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._open: dict[Target, PublishChannel] = {}
        self._opening: dict[Target, asyncio.Task[PublishChannel]] = {}
        self._slots = asyncio.Semaphore(IN_FLIGHT)

    async def publish(self, message: Message, timeout: float | None) -> None:
        """See `Broker.publish`."""
        packed = pack(message, self._link.header_budget)
        target = (message.exchange, "" if message.exchange else message.routing_key)
        if timeout is None:
            await self._confirm(message, packed, target)
            return
        is_sent = False
        try:
            async with asyncio.timeout(timeout):
                if target not in self._open and not self._link.connected:
                    await self._link.connection()
                async with self._slots:
                    is_sent = True
                    await self._confirm(message, packed, target)
        except TimeoutError:
            if is_sent or self._link.connected:
                raise PublishTimeout(
                    f"no confirm for {address(message)} within {timeout:g} s; it may or may not be in a queue"
                ) from None
            raise NotConnected(
                f"not sent to {address(message)}: no connection to {self._link} within {timeout:g} s "
                f"({self._link.last_error})"
            ) from None

    async def close(self) -> None:
        """Close the channels."""
        for task in self._opening.values():
            task.cancel()
        channels, self._open = self._open, {}
        await asyncio.gather(*(channel.close() for channel in channels.values()))

    async def _confirm(self, message: Message, packed: Packed, target: Target) -> None:
        """Publish until the broker said yes or no; what a lost channel left unknown is sent again."""
        while True:
            try:
                channel = self._open.get(target)
                if channel is None:
                    channel = await self._opened(target)
                    packed = pack(message, self._link.header_budget)  # the broker says only now how much it takes
                verdict = await channel.send(message, packed)
                break
            except AMQPChannelError as error:
                if (cause := publish_error(message, error)) is not None:
                    raise cause from None
                self._link.last_error = explain(error)
            except CONNECTION_ERRORS as error:
                self._link.last_error = explain(error)
            await asyncio.sleep(0.05)
        match verdict:
            case "confirmed":
                return
            case "unroutable":
                raise Unroutable(f"no queue is bound for {address(message)}")
            case "refused":
                raise PublishRefused(f"the broker refused {address(message)} (basic.nack); is a queue full?")
            case _:
                assert_never(verdict)

    async def _opened(self, target: Target) -> PublishChannel:
        """Wait for the channel of a target, which all who publish to it share."""
        task = self._opening.get(target)
        if task is None:
            task = self._opening[target] = asyncio.create_task(self._create(target))
            task.add_done_callback(lambda done: self._end(target, done))
        with lost_as_error:
            return await asyncio.shield(task)

    async def _create(self, target: Target) -> PublishChannel:
        connection = await self._link.connection()
        channel = await connection.open_channel(confirms=True)
        exchange, _ = target
        if exchange:
            # Asked before anything is in flight: a publish to a missing exchange would close a busy channel.
            try:
                await while_open(connection, channel.declare_exchange(exchange, passive=True, timeout=RPC))
            except ChannelNotFoundEntity:
                raise Unroutable(f"exchange {exchange!r} does not exist on {self._link}") from None
        self._open[target] = publishing = PublishChannel(channel, connection.frame_max)
        channel.closing.add_done_callback(lambda _: self._forget(target, publishing))
        return publishing

    def _end(self, target: Target, opening: "asyncio.Task[PublishChannel]") -> None:
        del self._opening[target]
        if not opening.cancelled():
            opening.exception()  # retrieved: whoever waits gets it

    def _forget(self, target: Target, channel: PublishChannel) -> None:
        if self._open.get(target) is channel:
            del self._open[target]
