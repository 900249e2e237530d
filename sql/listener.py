"""Hearing of commits: a connection that listens for PostgreSQL's notifications, and proves that it hears."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from .openers import AlchemyAsync, Asyncpg, PsycopgAsync

if TYPE_CHECKING:
    from .database import Database
    from .openers import Opener, OpenerAsync
    from .steps import Steps

_CHANNEL = "holdfast"
_PATIENCE = 2.0  # seconds until a notification of our own must have arrived


class Listener:
    """Listens on one connection of the database's own pool, for `wake` to be called with each notification.

    Where a pooler shares connections between transactions, nothing is heard: `url` is that of a direct connection.
    """

    def __init__(
        self, database: "Database[Any]", schema: str, wake: Callable[[], None], *, url: str | None = None
    ) -> None:
        self._database = database
        self._url = url
        self._schema = schema
        self._wake = wake
        self._heard = asyncio.Event()

    @property
    def is_able(self) -> bool:
        """Whether the database has notifications, and a driver that waits for them."""
        return self._database.dialect == "postgresql" and (self._database.is_async or self._url is not None)

    async def listen(self, on_deaf: Callable[[], None]) -> None:
        """Listen until the connection is lost. Calls `on_deaf` where a notification of our own does not arrive.

        Raises what the driver raises, with psycopg in an `ExceptionGroup`.
        """
        async with self._connection() as raw:
            lost = asyncio.Event()
            if hasattr(raw, "add_listener"):
                raw.add_termination_listener(lambda *_: lost.set())
                await raw.add_listener(_CHANNEL, lambda *arguments: self._hear(arguments[-1]))
                await self._prove(on_deaf)
                await lost.wait()
            else:
                await raw.set_autocommit(True)
                await raw.execute(f"listen {_CHANNEL}")
                async with asyncio.TaskGroup() as proving:
                    proving.create_task(self._prove(on_deaf))
                    async for notification in raw.notifies():
                        self._hear(notification.payload)

    def _hear(self, payload: str) -> None:
        if payload == self._schema:
            self._heard.set()
            self._wake()

    async def _prove(self, on_deaf: Callable[[], None]) -> None:
        self._heard.clear()
        await self._database.run(self._notify())
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._heard.wait()
        except TimeoutError:
            on_deaf()

    def _notify(self) -> "Steps[None]":
        yield self._database.statements(self._schema).notify, {"schema": self._schema}

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        """The driver's own connection; it is not used for anything else afterwards."""
        database = self._database if self._url is None else self._database.of_url(self._url)
        try:
            async with _raw(database.opener) as raw:
                yield raw
        finally:
            if database is not self._database:
                await database.close()


@asynccontextmanager
async def _raw(opener: "Opener | OpenerAsync") -> AsyncIterator[Any]:
    if isinstance(opener, AlchemyAsync):
        connection = await opener.engine.connect()
        try:
            yield (await connection.get_raw_connection()).driver_connection
        finally:
            with suppress(Exception):
                await connection.invalidate()
            await connection.close()
    elif isinstance(opener, Asyncpg):
        async with opener.pool.acquire() as proxy:
            try:
                yield proxy
            finally:
                proxy.terminate()
    elif isinstance(opener, PsycopgAsync):
        async with opener.pool.connection() as psycopg:
            try:
                yield psycopg
            finally:
                await psycopg.close()
