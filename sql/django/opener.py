"""The transactions of a database that Django connects to."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import trouble
from ..openers import BaseOpener, Opened
from ..statements import Params, Row, in_percent
from ..steps import Execute


class Django(BaseOpener):
    """A database of Django's settings, by its alias. Each thread has a connection of its own, which lives as long as
    Django's `CONN_MAX_AGE` says, and no longer than until the database was unavailable."""

    def __init__(self, alias: str) -> None:
        self.alias = alias
        self._outages = 0
        self._thread = threading.local()

    @contextmanager
    def _transaction(self) -> Iterator[Opened]:
        """Open a transaction on this thread's connection, where the ORM finds it."""
        from django.db import transaction

        connection = self._connection()
        try:
            with transaction.atomic(using=self.alias, durable=True):
                is_open = lambda: connection.in_atomic_block and not connection.needs_rollback  # noqa: E731
                yield Opened(connection, on_django(connection), is_open)
        except Exception as error:
            if trouble(error) == "unavailable":
                self._outages += 1
            raise
        finally:
            connection.close_if_unusable_or_obsolete()

    def _connection(self) -> Any:
        """This thread's connection. One from before an outage is closed: the server does not know it any more."""
        from django.db import connections

        connection, outages = connections[self.alias], self._outages
        if getattr(self._thread, "outages", 0) != outages:
            connection.close()
        self._thread.outages = outages
        connection.close_if_unusable_or_obsolete()
        return connection


def on_django(connection: Any) -> Execute:
    """Return what executes a statement on a connection of Django."""

    def execute(sql: str, params: Params) -> list[Row]:
        with connection.cursor() as cursor:
            cursor.execute(in_percent(sql), dict(params))
            if cursor.description:
                return [tuple(row) for row in cursor.fetchall()]
            return [(True,)] * cursor.rowcount if connection.vendor == "mysql" else []

    return execute
