"""Confirmed publishing: mandatory, persistent, bounded, on one channel per exchange, or queue published to directly.

A publish to a missing exchange closes its channel, and one to a quorum queue without a leader blocks it; with a channel
of its own for each it hurts no other.
"""

import asyncio
from typing import TypeAlias, assert_never

from aiormq.exceptions import AMQPChannelError, ChannelNotFoundEntity

from ...events import BrokerUnavailable, Message, NotConnected, PublishError, PublishRefused, PublishTimeout, Unroutable
from ...telemetry import Emit, PublishingHeld, PublishingResumed, heed_cancellation, mark_heard
from ..codec import Packed, address, pack
from .confirms import PublishChannel
from .connection import RPC, WiredConnection, close_quietly
from .errors import CONNECTION_ERRORS, explain, publish_error
from .lifetime import lost_as_error, while_open
from .link import Link

IN_FLIGHT = 500
"""Publishes with a time limit that may wait for their confirm at once. Copies have none: prefetch bounds them."""

RESERVED = 3
"""Channels of a connection that are left for declaring and asking, where RabbitMQ allows few."""

_AGAIN = 0.05  # seconds between two tries to open a channel
_TRIES = 20  # until it is reported that none can be opened

Target: TypeAlias = tuple[str, str]
"""An exchange, or the default exchange and a queue."""


class AmqpPublisher:
    """Publishes on the connection of one link."""

    def __init__(self, link: Link, emit: Emit) -> None:
        self._link = link
        self._emit = emit
        self._open: dict[Target, PublishChannel] = {}
        self._opening: dict[Target, asyncio.Task[PublishChannel]] = {}
        self._making = 0  # channels that are being opened now
        self._is_closed = False
        self._slots = asyncio.Semaphore(IN_FLIGHT)

    async def publish(self, message: Message, timeout: float | None) -> None:
        """See `Broker.publish`."""
        if self._is_closed:
            raise _unconfirmed(message, is_sent=False)
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
        except BrokerUnavailable:
            if self._is_closed:
                raise _unconfirmed(message, is_sent=is_sent) from None
            raise
        except TimeoutError:
            if is_sent or self._link.connected:
                why = f" ({self._link.last_error})" if target in self._opening else ""
                raise PublishTimeout(
                    f"no confirm for {address(message)} within {timeout:g} s; it may or may not be in a queue{why}"
                ) from None
            raise NotConnected(
                f"not sent to {address(message)}: no connection to {self._link} within {timeout:g} s "
                f"({self._link.last_error})"
            ) from None

    async def close(self) -> None:
        """Close the channels. Who waits for a confirm waits no more."""
        self._is_closed = True
        for task in self._opening.values():
            task.cancel()
        channels, self._open = self._open, {}
        await asyncio.gather(*(channel.close(min(2, self._link.patience.seconds)) for channel in channels.values()))

    async def _confirm(self, message: Message, packed: Packed, target: Target) -> None:
        """Publish until the broker said yes or no; what a lost channel left unknown is sent again."""
        is_sent = False
        while True:
            if self._is_closed:
                raise _unconfirmed(message, is_sent=is_sent)
            try:
                channel = self._open.get(target)
                if channel is None:
                    channel = await self._opened(target)
                    packed = pack(message, self._link.header_budget)  # the broker says only now how much it takes
                is_sent = True
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
        with lost_as_error():
            return await asyncio.shield(task)

    async def _create(self, target: Target) -> PublishChannel:
        """Open the channel of a target, however often that fails; report it once where the connection is not the
        reason."""
        name, is_held = target[0] or target[1], False
        try:
            while True:
                heed_cancellation()
                connection = await self._link.connection()
                try:
                    with lost_as_error():
                        await self._make_room(connection)
                        return await self._channel(connection, target)
                except AMQPChannelError:
                    raise
                except CONNECTION_ERRORS as error:
                    self._link.last_error = explain(error)
                    if not (is_held or connection.is_closed):
                        is_held = True
                        self._emit(PublishingHeld(name, self._link.last_error))
                await asyncio.sleep(_AGAIN)
        finally:
            if is_held:
                self._emit(PublishingResumed(name))

    async def _make_room(self, connection: WiredConnection) -> None:
        """Close channels on which nothing is in flight, the earliest first, where RabbitMQ allows too few of them.

        Raises `ConnectionError` where each has something in flight for too long."""
        most, tries = max(1, connection.channel_max - RESERVED), _TRIES
        while len(self._open) + self._making >= most:
            idle = next((target for target, channel in self._open.items() if channel.is_idle), None)
            if idle is not None:
                await self._open.pop(idle).close(2)
            elif tries := tries - 1:
                await asyncio.sleep(_AGAIN)
            else:
                raise ConnectionError(
                    f"all {most} channels to publish on wait for confirms: raise channel_max of RabbitMQ"
                )

    async def _channel(self, connection: WiredConnection, target: Target) -> PublishChannel:
        exchange, _ = target
        self._making += 1
        try:
            channel = await connection.open_channel(confirms=True)
            try:
                if exchange:  # asked before anything is in flight: a publish to a missing one closes a busy channel
                    await while_open(connection, channel.declare_exchange(exchange, passive=True, timeout=RPC))
            except BaseException:
                await close_quietly(channel, 1)
                raise
        except ChannelNotFoundEntity:
            raise Unroutable(f"exchange {exchange!r} does not exist on {self._link}") from None
        finally:
            self._making -= 1
        self._open[target] = publishing = PublishChannel(channel, connection.frame_max)
        channel.closing.add_done_callback(lambda _: self._forget(target, publishing))
        return publishing

    def _end(self, target: Target, opening: "asyncio.Task[PublishChannel]") -> None:
        del self._opening[target]
        mark_heard(opening)  # whoever waits gets it

    def _forget(self, target: Target, channel: PublishChannel) -> None:
        if self._open.get(target) is channel:
            del self._open[target]


def _unconfirmed(message: Message, *, is_sent: bool) -> PublishError:
    """Return the error of a message that is not confirmed when the program closes the connection."""
    if is_sent:
        return PublishTimeout(
            f"no confirm for {address(message)} before this program closed its connection; "
            "it may or may not be in a queue"
        )
    return NotConnected(f"not sent to {address(message)}: this program closed its connection")
