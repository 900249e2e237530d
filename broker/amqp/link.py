"""One connection under supervision: connect, hand out, notice the loss, connect again, for ever."""

import asyncio
import math
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from itertools import count

from aiormq.exceptions import AMQPChannelError
from yarl import URL

from ...config import BrokerSettings
from ...events import BrokerUnavailable
from ...telemetry import (
    Blocked,
    Connected,
    Disconnected,
    Emit,
    Role,
    Unblocked,
    heed_cancellation,
    keep_running,
    report,
)
from ..codec import HEADER_BUDGET, header_budget
from ..pause import RECONNECT, STEADY
from .connection import RPC, WiredConnection, addresses_now, close_quietly, connect_to_one, shown, untapped
from .errors import CONNECTION_ERRORS, explain, is_refusal
from .lifetime import lost_as_error, while_open, why_closed

_BRIEF = 0.2  # seconds for an answer, where an earlier one did not come in time
_BLOCKED, _UNBLOCKED = b"\x00\x0a\x00\x3c", b"\x00\x0a\x00\x3d"  # class and method


class Patience:
    """How long answers are waited for while a process stops, on all its connections: once one is missing, the others
    are hardly waited for. So a broker that is frozen costs one time-out, and not one for each answer."""

    def __init__(self) -> None:
        self.seconds = RPC

    @contextmanager
    def answer(self) -> Iterator[float]:
        """Yield the seconds that one answer may take, and note whether it came. Hands on `TimeoutError`."""
        try:
            yield self.seconds
        except TimeoutError:
            self.seconds = _BRIEF
            raise
        self.seconds = RPC


class Link:
    """A connection with a role of its own: a memory alarm that blocks publishing must not block acks.

    Several hosts are tried in turn, in a random order, so that connections spread over them.
    """

    def __init__(self, role: Role, settings: BrokerSettings, emit: Emit, patience: Patience) -> None:
        self._role = role
        self.patience = patience
        self._settings = settings
        self._turns = count(random.randrange(len(settings.urls)))
        self.turn = next(self._turns)
        """Number of the host of this connection, or of the one that was tried last."""
        self.url = URL(settings.urls[self.turn])
        self._emit = emit
        self._up: asyncio.Future[WiredConnection] = asyncio.get_running_loop().create_future()
        self._task: asyncio.Task[None] | None = None
        self._closed: BrokerUnavailable | None = None
        self._refused: BrokerUnavailable | None = None
        self._was_up = False
        self.on_connect: Callable[[WiredConnection], Awaitable[None]] | None = None
        self.last_error = "not connected yet"
        self._unanswered: set[str] = set()
        self.header_budget = HEADER_BUDGET
        """Bytes of headers that fit a frame of the broker, or of the one that was there last."""

    @property
    def connected(self) -> bool:
        return self._up.done() and not self._up.result().is_closed

    async def connection(self) -> WiredConnection:
        """Return the open connection; wait for it as long as it takes.

        Raises `BrokerUnavailable` while the broker refuses login or virtual host and there never was a connection, and
        once this was closed.
        """
        if self._closed is not None:
            raise self._closed
        if self._task is None:
            supervising = keep_running("connection", self._supervise, self._emit)
            self._task = asyncio.create_task(supervising, name=f"holdfast link {self._role}")
        while True:
            if self._refused is not None:
                raise self._refused
            connection = await asyncio.shield(self._up)
            if not connection.is_closed:
                return connection
            await asyncio.sleep(0)  # the supervisor is about to see it

    @contextmanager
    def asking(self, queue: str) -> Iterator[None]:
        """Note that a queue is asked for here, until the broker answers."""
        self._unanswered.add(queue)
        try:
            yield
        except AMQPChannelError:
            self._unanswered.discard(queue)
            raise
        self._unanswered.discard(queue)

    async def try_out(self, queue: str, prefetch: int) -> None:
        """Consume a queue on a connection of its own, for a moment, if there was no answer when it was asked for here.
        RabbitMQ ends the whole connection that asks for a quorum queue without a leader, with all its consumers.

        `prefetch` is that of the queue's consumers. What they had in hand is lent again first. A smaller prefetch would
        lend a part of it, which returns behind the rest: in another order.

        Raises `BrokerUnavailable` where there is no answer either, and `AMQPChannelError` for what RabbitMQ refuses.
        """
        if queue not in self._unanswered:
            return
        try:
            urls, context = addresses_now(self._settings, f"{self._role} {queue}")
            connection = await connect_to_one([urls[self.turn % len(urls)]], self._settings.connect_timeout, context)
        except CONNECTION_ERRORS:
            return  # as where connections are limited: nothing is known of the queue
        try:
            with lost_as_error():
                channel = await connection.open_channel()
                await while_open(connection, channel.set_qos(prefetch, timeout=RPC))
                source = await channel.get_queue(queue, ensure=False)
                await while_open(connection, source.consume(untapped, timeout=RPC))
        except AMQPChannelError:
            raise
        except CONNECTION_ERRORS as error:
            raise BrokerUnavailable(
                f"{queue} cannot be consumed on a connection of its own either; has it no leader? ({explain(error)})"
            ) from None
        finally:
            await close_quietly(connection, 1)

    async def close(self) -> None:
        """Close the connection, and connect no more."""
        self._closed = BrokerUnavailable(f"the connection to {self} was closed by this program")
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self._tell(self._closed)

    async def _supervise(self) -> None:
        failures, loop = 0, asyncio.get_running_loop()
        while True:
            heed_cancellation()
            since = math.inf
            try:
                with lost_as_error():
                    connection = await self._connect()
                    since = loop.time()
                    await self._hold(connection)
            except CONNECTION_ERRORS as error:
                heed_cancellation()
                self._fail(error)
            except Exception as error:  # noqa: BLE001 (whatever it is, the connection is gone)
                self._fail(error)
                report("connection", error, self._emit)
            failures = 0 if loop.time() - since > STEADY else failures
            delay = RECONNECT.seconds(failures, random.random())
            failures += 1
            if self._refused is None:
                self._emit(Disconnected(self._role, str(self), self.last_error, delay))
            await asyncio.sleep(delay)

    async def _connect(self) -> WiredConnection:
        self.turn = next(self._turns)
        urls, context = addresses_now(self._settings, self._role)
        self.url = urls[self.turn % len(urls)]
        connection = WiredConnection(self.url, context=context)
        try:
            await connection.connect(self._settings.connect_timeout)
            connection.wire.splitter.tap(0, self)
            if self.on_connect is not None:
                await while_open(connection, self.on_connect(connection))
            heed_cancellation()
        except BaseException:
            await close_quietly(connection, 1)
            raise
        return connection

    async def _hold(self, connection: WiredConnection) -> None:
        """Hand the connection out until it is lost."""
        try:
            self.header_budget = header_budget(connection.frame_max)
            self._was_up, self._refused = True, None
            self._up.set_result(connection)
            self._emit(Connected(self._role, str(self), " ".join(connection.server)))
            self.last_error = await why_closed(connection)
        finally:
            self._up = asyncio.get_running_loop().create_future()
            await close_quietly(connection, min(5, self.patience.seconds))

    def take(self, kind: int, data: bytes, start: int, end: int) -> int:
        """Emit the broker's alarms (`connection.blocked`) as facts. Takes no frame: see `Tap`."""
        method = data[start : start + 4]
        if method == _BLOCKED:
            reason = data[start + 5 : start + 5 + data[start + 4]].decode(errors="replace")
            self._emit(Blocked(self._role, str(self), reason))
        elif method == _UNBLOCKED:
            self._emit(Unblocked(self._role, str(self)))
        return 0

    def _fail(self, error: Exception) -> None:
        self.last_error, self._refused = explain(error), None
        if is_refusal(error) and not self._was_up:
            self._refuse()  # raised to whoever asks; a limit may be lifted, so it is tried again

    def _refuse(self) -> None:
        self._refused = BrokerUnavailable(f"{self} refused this client: {self.last_error}")
        self._tell(self._refused)

    def _tell(self, error: BrokerUnavailable) -> None:
        """Raise an error to all who wait for a connection."""
        self._up.set_exception(error)
        self._up.exception()  # retrieved: whoever waits gets it, and no one must
        self._up = asyncio.get_running_loop().create_future()

    def __str__(self) -> str:
        return shown(self.url)
