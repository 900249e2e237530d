"""Confirmed publishing: mandatory, persistent, bounded, on one channel per exchange, or queue published to directly.

A publish to a missing exchange closes its channel, and one to a quorum queue without a leader blocks it; with a channel
of its own for each it hurts no other.
"""

import asyncio
from typing import TypeAlias, assert_never

from aiormq.exceptions import AMQPChannelError, ChannelNotFoundEntity

from ...events import BrokerUnavailable, Message, NotConnected, PublishError, PublishRefused, PublishTimeout, Unroutable
from ...telemetry import Emit, PublishingHeld, PublishingResumed, heed_cancellation, mark_heard
from ..codec import address, pack
from .confirms import IN_FLIGHT, PublishChannel, Verdict
from .connection import FULL, RPC, WiredConnection, close_quietly
from .errors import CONNECTION_ERRORS, explain, publish_error
from .lifetime import lost_as_error, while_open
from .link import Link

RESERVED = 3
"""Channels of a connection that are left for declaring and asking, where RabbitMQ allows few."""

_ENOUGH = 100  # channels to publish on, beyond which one on which nothing is in flight is closed for the next
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

    async def publish(self, message: Message, timeout: float | None) -> None:
        """See `Broker.publish`."""
        match await self._confirm(message, timeout):
            case "confirmed":
                return
            case "unroutable":
                raise Unroutable(f"no queue is bound for {address(message)}")
            case "refused":
                raise PublishRefused(f"the broker refused {address(message)} (basic.nack); is a queue full?")
            case never:
                assert_never(never)

    async def close(self) -> None:
        """Close the channels. Who waits for a confirm waits no more."""
        self._is_closed = True
        for task in self._opening.values():
            task.cancel()
        channels, self._open = self._open, {}
        await asyncio.gather(*(channel.close(min(2, self._link.patience.seconds)) for channel in channels.values()))

    async def _confirm(self, message: Message, timeout: float | None) -> Verdict:
        """Publish until the broker said yes or no; what a lost channel left unknown is sent again."""
        packed = pack(message, self._link.header_budget)
        target = (message.exchange, "" if message.exchange else message.routing_key)
        is_sent = False
        try:
            async with asyncio.timeout(timeout):
                while not self._is_closed:
                    try:
                        channel = self._open.get(target)
                        if channel is None:
                            channel = await self._opened(target)
                            packed = pack(message, self._link.header_budget)  # the broker says only now what it takes
                        if channel.wire.transport.get_write_buffer_size() > FULL:
                            await channel.wire.drained()
                        if timeout is not None:
                            await channel.slots.acquire()
                        is_sent = True
                        return await channel.send(message, packed, has_slot=timeout is not None)
                    except CONNECTION_ERRORS as error:
                        if (cause := publish_error(message, error)) is not None:
                            raise cause from None
                        self._link.last_error = explain(error)
                    await asyncio.sleep(0.05)
        except BrokerUnavailable:
            if not self._is_closed:
                raise
        except TimeoutError:
            raise self._overdue(message, target, f"within {timeout:g} s", is_sent=is_sent) from None
        raise _unconfirmed(message, is_sent=is_sent)

    def _overdue(self, message: Message, target: Target, limit: str, *, is_sent: bool) -> PublishError:
        """Return the error of a message whose time is over."""
        where, error, is_opening = address(message), self._link.last_error, target in self._opening
        if is_sent:
            why = f" ({error})" if is_opening else ""
            return PublishTimeout(f"no confirm for {where} {limit}; it may or may not be in a queue{why}")
        if self._link.connected:
            why = f"no channel was opened ({error})" if is_opening else f"{IN_FLIGHT} before it wait for their confirms"
            return PublishTimeout(f"not sent to {where} {limit}: {why}")
        return NotConnected(f"not sent to {where}: no connection to {self._link} {limit} ({error})")

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
        """Close channels on which nothing is in flight, the earliest first, where there are enough of them, as for
        queues that take one answer each, or RabbitMQ allows no more.

        Raises `ConnectionError` where each has something in flight for too long."""
        most, tries = max(1, connection.channel_max - RESERVED), _TRIES
        while (count := len(self._open) + self._making) >= min(most, _ENOUGH):
            idle = next((target for target, channel in self._open.items() if channel.is_idle), None)
            if idle is not None:
                await self._open.pop(idle).close(2)
            elif count < most:
                return
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
