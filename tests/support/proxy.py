"""A TCP proxy that breaks what passes through it, on request."""

import asyncio
import math
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from enum import Enum
from urllib.parse import urlsplit

from holdfast.testing.servers import free_port

LOOPBACK = "127.0.0.1"


class Direction(Enum):
    """Which way bytes travel."""

    TO_SERVER = "to the server"
    TO_CLIENT = "to the client"


BOTH = frozenset(Direction)


class Proxy:
    """Listens on a loopback port and forwards to `host:port`; the address stays the same through every fault."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._port = free_port()
        self._listener: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._gates = {direction: _open_gate() for direction in Direction}
        self._budgets: dict[Direction, int] = {}
        self._withheld: set[Direction] = set()
        self._delay, self._rate = 0.0, math.inf
        self._changed = asyncio.Condition()
        self.alter: Callable[[bytes, Direction], bytes] = lambda data, direction: data
        """What becomes of each piece that passes."""

    @property
    def port(self) -> int:
        return self._port

    @property
    def connections(self) -> int:
        """How many connections pass through now."""
        return len(self._links)

    def url(self, base: str) -> str:
        """`base` with host and port replaced by the proxy's."""
        parts = urlsplit(base)
        credentials, at, _ = parts.netloc.rpartition("@")
        return parts._replace(netloc=f"{credentials}{at}{LOOPBACK}:{self._port}").geturl()

    def lead_to(self, port: int) -> None:
        """Forward new connections to another server of the same host; those there are live on."""
        self._target = (self._target[0], port)

    def cut(self) -> None:
        """Abort every connection there is with a reset; new ones are welcome."""
        for link in self._links:
            link.abort()
        for task in self._tasks:
            task.cancel()

    def cut_after(self, size: int, direction: Direction) -> None:
        """Let at most `size` more bytes pass in `direction`, over all connections, then cut. Acts once."""
        self._budgets[direction] = size

    def spare(self) -> None:
        """Undo `cut_after` where it has not acted yet."""
        self._budgets.clear()

    async def refuse(self) -> None:
        """Refuse new connections (nobody listens any more); those there are live on."""
        if self._listener:
            self._listener.close()
            self._listener = None

    async def accept(self) -> None:
        """Undo `refuse`."""
        if self._listener is None:
            self._listener = await asyncio.start_server(self._serve, LOOPBACK, self._port)

    def swallow(self, *directions: Direction) -> None:
        """Withhold what is sent, both ways unless told which: connections stay open and silent, nothing is dropped."""
        for direction in directions or BOTH:
            self._gates[direction].clear()

    def freeze(self, saying: bytes) -> None:
        """Withhold what is sent to the server on the connections there are that began with such words."""
        for link in self._links:
            if saying in link.greeting:
                link.thawed.clear()

    def resume(self) -> None:
        """Undo `swallow` and `freeze`: what was withheld is forwarded."""
        for gate in self._gates.values():
            gate.set()
        for link in self._links:
            link.thawed.set()

    def slow(self, delay: float = 0.0, rate: float = math.inf) -> None:
        """Keep each piece back for `delay` seconds and let `rate` bytes a second pass, on each way of each connection;
        without arguments, no longer."""
        self._delay, self._rate = delay, rate

    async def until_connections(self, count: int) -> None:
        """Return as soon as exactly `count` connections pass through."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self._links) == count)

    async def until_withheld(self, direction: Direction) -> None:
        """Return as soon as there are bytes (or an end) that `swallow` or `freeze` keep from travelling there."""
        async with self._changed:
            await self._changed.wait_for(lambda: direction in self._withheld)

    async def close(self) -> None:
        await self.refuse()
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with suppress(asyncio.CancelledError):  # asyncio would report it
            await self._carry(reader, writer)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server_reader, server_writer = await asyncio.open_connection(*self._target)
        except OSError:
            _reset(writer)
            return
        except asyncio.CancelledError:
            _reset(writer)
            raise
        link = _Link(writer, server_writer)
        await self._note(link, joined=True)
        try:
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._pump(link, reader, server_writer, Direction.TO_SERVER))
                pumps.create_task(self._pump(link, server_reader, writer, Direction.TO_CLIENT))
        except* OSError:
            pass
        finally:
            link.close()
            await self._note(link, joined=False)

    async def _pump(
        self, link: "_Link", source: asyncio.StreamReader, sink: asyncio.StreamWriter, direction: Direction
    ) -> None:
        while data := await source.read(65536):
            if direction is Direction.TO_SERVER:
                link.hear(data)
                await self._pass(link.thawed, direction)
            await self._pass(self._gates[direction], direction)
            if pause := self._delay + len(data) / self._rate:
                await asyncio.sleep(pause)
            budget = self._budgets.get(direction)
            if budget is not None and len(data) >= budget:
                self._budgets.pop(direction, None)
                sink.write(data[:budget])
                await sink.drain()
                self.cut()
                return
            if budget is not None:
                self._budgets[direction] = budget - len(data)
            sink.write(self.alter(data, direction))
            await sink.drain()
        await self._pass(self._gates[direction], direction)
        if sink.can_write_eof():
            sink.write_eof()

    async def _pass(self, gate: asyncio.Event, direction: Direction) -> None:
        if gate.is_set():
            return
        async with self._changed:
            self._withheld.add(direction)
            self._changed.notify_all()
        try:
            await gate.wait()
        finally:
            self._withheld.discard(direction)

    async def _note(self, link: "_Link", *, joined: bool) -> None:
        async with self._changed:
            (self._links.add if joined else self._links.discard)(link)
            self._changed.notify_all()


class _Link:
    """The two sockets of one connection."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self._client = client
        self._server = server
        self.greeting = b""
        self.thawed = _open_gate()

    def hear(self, data: bytes) -> None:
        self.greeting += data[: 2048 - len(self.greeting)]

    def abort(self) -> None:
        _reset(self._client)
        _reset(self._server)

    def close(self) -> None:
        self._client.close()
        self._server.close()


@asynccontextmanager
async def proxy_to(url: str) -> AsyncIterator[Proxy]:
    """A running proxy in front of the server that `url` names."""
    parts = urlsplit(url)
    proxy = Proxy(parts.hostname or LOOPBACK, parts.port or 5672)
    await proxy.accept()
    try:
        yield proxy
    finally:
        await proxy.close()


def _open_gate() -> asyncio.Event:
    gate = asyncio.Event()
    gate.set()
    return gate


def _reset(writer: asyncio.StreamWriter) -> None:
    # A socket closed with lingering on and no time to linger sends RST instead of FIN.
    connection = writer.get_extra_info("socket")
    if connection is not None and connection.fileno() != -1:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
