"""The waking of relays after a commit of Django's."""

import threading
from contextlib import closing, suppress
from functools import lru_cache
from typing import Any

from ..statements import Statements, in_percent

_PAUSE = 0.05  # seconds in which commits share a notification


def wake_after_commit(connection: Any, schema: str) -> None:
    """Wake relays once the transaction of a connection has committed."""
    if connection.vendor == "postgresql":
        connection.on_commit(_waker_of(connection.alias, schema).wake, robust=True)


class Waker:
    """Sends at most one notification in 50 ms, on a connection of its own: a web request does not wait for it."""

    def __init__(self, alias: str, schema: str) -> None:
        self._alias, self._schema = alias, schema
        self._is_due = False

    def wake(self) -> None:
        """Notify the relays soon. Called after a commit, in the thread that committed."""
        if self._is_due:
            return
        self._is_due = True
        timer = threading.Timer(_PAUSE, self._send)
        timer.daemon = True
        timer.start()

    def _send(self) -> None:
        self._is_due = False
        with suppress(Exception):  # a notification that is lost delays its events until relays look by themselves
            _notify(self._alias, self._schema)


def _notify(alias: str, schema: str) -> None:
    from django.db import connections

    with closing(connections[alias]) as connection, connection.cursor() as cursor:  # this thread has no other
        cursor.execute(in_percent(Statements("postgresql").notify), {"schema": schema})


@lru_cache(maxsize=100)
def _waker_of(alias: str, schema: str) -> Waker:
    return Waker(alias, schema)
