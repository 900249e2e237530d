"""Waking relays after a commit, from a connection of its own: a NOTIFY inside a transaction makes all commits of the
database queue up behind each other."""

import asyncio
import os
import threading
import time
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from sqlalchemy import event
from sqlalchemy.exc import MissingGreenlet
from sqlalchemy.util import await_only, greenlet_spawn

from .openers import on_alchemy
from .statements import Statements

if TYPE_CHECKING:
    from sqlalchemy import Engine

_PAUSE = 0.02  # seconds in which commits share a notification


class Waker:
    """Sends a notification at once, and at most one in 20 ms. A lost one delays its events until relays look again.

    It leaves no connection open when its engine is disposed of: a pool that was replaced closes what it is given back.
    A forked process disposes of its copy of the engine without closing connections: they are its parent's.
    """

    def __init__(self, engine: "Engine", schema: str) -> None:
        self._engine = weakref.ref(engine)
        self._sql, self._params = Statements("postgresql").notify, {"schema": schema}
        self._is_due = False
        self._next = 0.0
        """By the monotonic clock: no notification is sent before."""
        self._sending: asyncio.Task[None] | threading.Timer | None = None
        self._pool: Any = None
        """The engine's pool when it was to be woken last."""
        self._process = os.getpid()
        """The process that was to wake last."""
        event.listen(engine, "engine_disposed", self._end)

    def wake(self) -> None:
        """Notify the relays soon. Called after a commit, in the thread of the session."""
        engine = self._engine()
        if self._is_due or engine is None or engine.dialect.name != "postgresql":
            return
        now = time.monotonic()
        pause, self._next = max(0.0, self._next - now), max(now, self._next) + _PAUSE
        self._is_due, self._pool, self._process = True, engine.pool, os.getpid()
        if engine.dialect.is_async:
            self._sending = asyncio.get_running_loop().create_task(self._send_on_loop(engine, engine.pool, pause))
            return
        timer = self._sending = threading.Timer(pause, self._send, (engine, engine.pool))
        timer.daemon = True
        timer.start()

    def _end(self, _: Any) -> None:
        """Open no connection of an engine that was disposed of. `AsyncEngine.dispose` waits until none is open."""
        sending, self._sending, self._is_due = self._sending, None, False
        if self._process != os.getpid():  # a fork has neither the thread nor the loop, and shares the connections
            return
        if isinstance(sending, asyncio.Task):
            if not sending.done():
                sending.cancel()
                with suppress(MissingGreenlet):  # the engine was not disposed of by its asynchronous half
                    await_only(asyncio.wait([sending]))
        elif sending is not None:
            sending.cancel()
            self._pool.dispose()  # the thread may have given its connection back while the pool was replaced

    def _send(self, engine: "Engine", pool: Any) -> None:
        """Send, in a thread or in a greenlet of the loop, unless the engine has been disposed of since the commit."""
        if engine.pool is not pool:
            return
        self._is_due = False
        try:
            with suppress(Exception), engine.connect() as connection:
                connection.execution_options(isolation_level="AUTOCOMMIT")
                on_alchemy(connection, "postgresql")(self._sql, self._params)
        finally:
            if engine.pool is not pool:  # the connection may be of either
                pool.dispose()
                engine.pool.dispose()

    async def _send_on_loop(self, engine: "Engine", pool: Any, pause: float) -> None:
        try:
            await asyncio.sleep(pause)
        finally:
            self._is_due = False
        await greenlet_spawn(self._send, engine, pool)


_wakers: "weakref.WeakKeyDictionary[Any, dict[str, Waker]]" = weakref.WeakKeyDictionary()


def waker_of(bind: Any, schema: str) -> Waker:
    """Return the waker of an engine; of a connection, that of its engine."""
    wakers = _wakers.setdefault(bind.engine, {})
    if schema not in wakers:
        wakers[schema] = Waker(bind.engine, schema)
    return wakers[schema]
