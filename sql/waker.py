"""Waking relays after a commit, from a connection of its own: a NOTIFY inside a transaction makes all commits of the
database queue up behind each other."""

import asyncio
import threading
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from sqlalchemy import event

from .openers import clause
from .statements import Statements

if TYPE_CHECKING:
    from sqlalchemy import Engine

_PAUSE = 0.02  # seconds in which commits share a notification


class Waker:
    """Sends at most one notification in 20 ms. One that is lost delays its events until relays look by themselves."""

    def __init__(self, engine: "Engine", schema: str) -> None:
        self._engine = weakref.ref(engine)
        self._sql, self._params = Statements("postgresql").notify, {"schema": schema}
        self._is_due = False
        self._disposals = 0
        self._sending: asyncio.Task[None] | threading.Timer | None = None
        event.listen(engine, "engine_disposed", self._cancel)

    def wake(self) -> None:
        """Notify the relays soon. Called after a commit, in the thread of the session."""
        engine = self._engine()
        if self._is_due or engine is None or engine.dialect.name != "postgresql":
            return
        self._is_due = True
        if engine.dialect.is_async:
            self._sending = asyncio.get_running_loop().create_task(self._send_on_loop(engine))
            return
        timer = self._sending = threading.Timer(_PAUSE, self._send, (engine,))
        timer.daemon = True
        timer.start()

    def _cancel(self, _: Any) -> None:
        """Open no connection of an engine that was disposed of."""
        if self._sending is not None:
            self._sending.cancel()
        self._is_due = False
        self._disposals += 1

    def _send(self, engine: "Engine") -> None:
        self._is_due, disposals = False, self._disposals
        with suppress(Exception), engine.connect() as connection:
            connection.execute(clause(self._sql), self._params)
            connection.commit()
            if disposals != self._disposals:
                connection.detach()  # its pool is gone: it is closed for good

    async def _send_on_loop(self, engine: "Engine") -> None:
        from sqlalchemy.ext.asyncio import AsyncEngine

        try:
            await asyncio.sleep(_PAUSE)
        finally:
            self._is_due = False
        with suppress(Exception):
            async with AsyncEngine(engine).begin() as connection:
                await connection.execute(clause(self._sql), self._params)


_wakers: "weakref.WeakKeyDictionary[Any, dict[str, Waker]]" = weakref.WeakKeyDictionary()


def waker_of(bind: Any, schema: str) -> Waker:
    """Return the waker of an engine; of a connection, that of its engine."""
    engine = bind.engine
    return _wakers.setdefault(engine, {}).setdefault(schema, Waker(engine, schema))
