"""One connection under supervision: connect, hand out, notice the loss, connect again, for ever."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from itertools import cycle, islice
from ssl import SSLContext
from typing import cast
from weakref import WeakKeyDictionary

from aiormq import Channel, Connection
from yarl import URL

from ...events import BrokerUnavailable
from ...telemetry import Connected, Disconnected, Emit, Role
from .explain import explain, is_refusal
from .losses import CONNECTION_ERRORS, close_quietly, heed_cancellation, lost_as_error, while_open, why_closed
from .splitter import FRAME_MAX
from .wire import TappedConnection

CHANNELS = 65_535  # as many as there are numbers, where the broker sets no limit
_NUMBERS: WeakKeyDictionary[Connection, Iterator[int]] = WeakKeyDictionary()

STEADY = 5.0  # seconds after which a connection counts as one that worked


def full_jitter(failures: int, *, base: float = 0.2, cap: float = 4.0) -> float:
    """Seconds to wait after `failures` failures in a row ("Exponential Backoff And Jitter", AWS, 2015)."""
    return random.uniform(0, min(cap, base * 2 ** min(failures, 16)))


class Link:
    """A connection with a role of its own: a memory alarm that blocks publishing must not block acks. Where it is
    `tapped`, its socket may be read and written directly."""

    def __init__(
        self,
        role: Role,
        url: str,
        *,
        heartbeat: int,
        connect_timeout: float,
        tapped: bool,
        tls: SSLContext | None = None,
        emit: Emit,
    ) -> None:
        self._role = role
        self._tapped = tapped
        self._tls = tls
        self._url = URL(url).update_query(heartbeat=heartbeat, name=f"holdfast {role}")
        self._connect_timeout = connect_timeout
        self._emit = emit
        self._up: asyncio.Future[Connection] | None = None
        self._task: asyncio.Task[None] | None = None
        self._refused: BrokerUnavailable | None = None
        self.on_connect: Callable[[Connection], Awaitable[None]] | None = None
        self.last_error = "not connected yet"
        self.frame_max = FRAME_MAX
        """Bytes of the largest frame that the broker takes, or took when it was last there."""

    @property
    def connected(self) -> bool:
        return self._up is not None and self._up.done() and not self._up.result().is_closed

    async def connection(self) -> Connection:
        """The open connection; waits for it as long as it takes.

        Raises `BrokerUnavailable` while the broker refuses login or virtual host and there never was a connection.
        """
        if self._task is None:
            self._up = asyncio.get_running_loop().create_future()
            self._task = asyncio.create_task(self._supervise(), name=f"holdfast link {self._role}")
        while True:
            if self._refused is not None:
                raise self._refused
            assert self._up is not None
            connection = await asyncio.shield(self._up)
            if not connection.is_closed:
                return connection
            await asyncio.sleep(0)  # the supervisor is about to see it

    async def close(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _supervise(self) -> None:
        failures, was_up = 0, False
        loop = asyncio.get_running_loop()
        while True:
            try:
                with lost_as_error:
                    connection = await self._connect()
            except CONNECTION_ERRORS as error:
                self.last_error, self._refused = explain(error), None
                if is_refusal(error) and not was_up:
                    self._refuse()  # told to whoever asks; a limit may be lifted, so it is tried again
            else:
                was_up, since, self._refused = True, loop.time(), None
                self.frame_max = connection.connection_tune.frame_max or FRAME_MAX
                assert self._up is not None
                self._up.set_result(connection)
                self._emit(Connected(self._role, str(self), _server(connection)))
                try:
                    self.last_error = await why_closed(connection)
                finally:
                    self._up = loop.create_future()
                    await close_quietly(connection, 5)
                failures = 0 if loop.time() - since > STEADY else failures
            delay = full_jitter(failures)
            failures += 1
            if self._refused is None:
                self._emit(Disconnected(self._role, str(self), self.last_error, delay))
            await asyncio.sleep(delay)

    async def _connect(self) -> Connection:
        connection = (TappedConnection if self._tapped else Connection)(self._url, context=self._tls)
        try:
            async with asyncio.timeout(self._connect_timeout):
                await connection.connect()
            if self.on_connect is not None:
                await while_open(connection, self.on_connect(connection))
            heed_cancellation()
        except BaseException:
            await close_quietly(connection, 1)
            raise
        return connection

    def _refuse(self) -> None:
        self._refused = BrokerUnavailable(f"{self} refused this client: {self.last_error}")
        assert self._up is not None
        self._up.set_exception(self._refused)
        self._up.exception()  # retrieved: whoever waits gets it, and no one must
        self._up = asyncio.get_running_loop().create_future()

    def __str__(self) -> str:
        return str(
            URL.build(
                scheme=self._url.scheme, host=self._url.host or "", port=self._url.explicit_port, path=self._url.path
            )
        )


async def open_channel(connection: Connection, *, confirms: bool, timeout: float = 10.0) -> Channel:
    """A new channel; with `confirms`, one on which an unroutable publish raises."""
    number = _channel_number(connection)
    opening = connection.channel(number, publisher_confirms=confirms, on_return_raises=True, timeout=timeout)
    return cast("Channel", await while_open(connection, opening))


def _channel_number(connection: Connection) -> int:
    """A number that was not in use for long. aiormq gives out that of a channel the broker has just closed; but where
    ten frames wait to be written it has not answered that closing: RabbitMQ then ends the connection (`second
    'channel.open' seen`)."""
    if (numbers := _NUMBERS.get(connection)) is None:
        numbers = _NUMBERS[connection] = cycle(range(1, (connection.connection_tune.channel_max or CHANNELS) + 1))
    for number in islice(numbers, CHANNELS):
        if number not in connection.channels:
            return number
    raise ConnectionError(f"all {len(connection.channels)} channels of a connection are in use")


def _server(connection: Connection) -> str:
    properties: dict[str, object] = dict(connection.server_properties or {})
    return f"{properties.get('product', '?')!s} {properties.get('version', '?')!s}"
