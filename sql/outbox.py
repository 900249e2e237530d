"""`Outbox`: events published as rows of the caller's own transaction."""

from collections.abc import Awaitable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeVar, overload

from ..broker import with_headers
from ..config import Settings, load_settings
from ..events import (
    ConfigurationError,
    Event,
    Headers,
    Metadata,
    PublishError,
    as_published,
    check_limits,
    followed,
    seal,
    with_metadata,
)
from .dialects import statements_of
from .errors import OutsideTransaction, raise_explained
from .executors import executor_of, kinds_of
from .statements import Outgoing, kept_headers

if TYPE_CHECKING:
    import sqlite3

    import psycopg
    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
    from sqlalchemy.orm import Session


T = TypeVar("T")

_IS_SILENT: ContextVar[bool] = ContextVar("holdfast_is_silent", default=False)


@contextmanager
def silenced() -> Iterator[None]:
    """Have every outbox refuse to publish meanwhile."""
    token = _IS_SILENT.set(True)
    try:
        yield
    finally:
        _IS_SILENT.reset(token)


class Outbox:
    """Publishes events in the caller's own transaction: they are sent by a relay if it commits, and else never.

    The process needs no connection to a broker.

    Args:
        settings: The settings, which hold the schema of the tables (`HOLDFAST_SQL__SCHEMA`); by default those of the
            environment.
        source: The name of this program in the events that it publishes.
        using: The alias of a database of Django's, whose connection `publish(event)` finds by itself.
    """

    def __init__(self, settings: Settings | None = None, *, source: str = "", using: str | None = None) -> None:
        self._settings = settings or load_settings()
        self._source = source
        self._using = using
        if find_spec("sqlalchemy"):  # sessions are listened to before the first one commits, whatever is imported later
            import_module(".sessions", __package__)

    @overload
    def publish(
        self,
        event: Event,
        /,
        *,
        metadata: Metadata | None = ...,
        event_id: str | None = ...,
        headers: Headers | None = ...,
        delay: float | None = ...,
        key: str | None = ...,
        follow: bool = ...,
    ) -> Metadata: ...

    @overload
    def publish(
        self,
        connection: "Session | AsyncSession | Connection | sqlite3.Connection | psycopg.Connection[Any]",
        event: Event,
        *,
        metadata: Metadata | None = ...,
        event_id: str | None = ...,
        headers: Headers | None = ...,
        delay: float | None = ...,
        key: str | None = ...,
        follow: bool = ...,
    ) -> Metadata: ...

    @overload
    def publish(
        self,
        connection: "AsyncConnection | psycopg.AsyncConnection[Any]",
        event: Event,
        *,
        metadata: Metadata | None = ...,
        event_id: str | None = ...,
        headers: Headers | None = ...,
        delay: float | None = ...,
        key: str | None = ...,
        follow: bool = ...,
    ) -> Awaitable[Metadata]: ...

    def publish(
        self,
        connection: Any,
        event: Event | None = None,
        *,
        metadata: Metadata | None = None,
        event_id: str | None = None,
        headers: Headers | None = None,
        delay: float | None = None,
        key: str | None = None,
        follow: bool = False,
    ) -> Metadata | Awaitable[Metadata]:
        """Publish an event in the transaction of a session or a connection.

        With a session of SQLAlchemy, asynchronous or not, the row is written when the session commits: all that the
        transaction locks is locked by then, so events of one key have the order of their commits. With a connection it
        is written at once; with an asynchronous one (asyncpg, psycopg, SQLAlchemy) the call is awaited. With `using` no
        connection is given: the event is a row of Django's `atomic`.

        Args:
            connection: The session or connection, in a transaction; left out with `using`.
            event: The event.
            metadata: Metadata in place of new ones. Their type and version are those of the event.
            event_id: The event's id, 1 to 255 bytes, instead of a new one.
            headers: Headers that travel with the message, beside those of Holdfast. They are kept as JSON until then.
            delay: Seconds from the commit until it is delivered.
            key: The aggregate, instead of the event's own key field.
            follow: Whether the request that it begins is followed (`Following`): it, and all that its handlers publish.
                A relay begins it when it sends the event. Its progress is `unknown` until then.

        Returns:
            The metadata of the event; with an asynchronous connection, to be awaited.

        Raises:
            OutsideTransaction: Nothing would commit the event.
            PublishError: It can never be sent, the metadata are those of another event, or `event_id` is given too.
            ConfigurationError: What is given is no connection.
        """
        settings = self._settings
        if event is None:
            connection, event = self._of_django(), connection
        event = as_published(event, settings.publisher.versions)
        envelope = seal(event, source=self._source, event_id=event_id, key=key, now=datetime.now(UTC))
        if metadata is not None:
            if event_id is not None:
                raise PublishError("give metadata or event_id, not both")
            envelope = with_metadata(envelope, metadata)
        if headers is not None:
            envelope = with_headers(envelope, headers)
            kept_headers(envelope)
        if follow:
            envelope = followed(envelope)
        check_limits(envelope, delay, max_body=settings.worker.max_body, max_delay=settings.broker.max_delay)
        return self._write(connection, [Outgoing(envelope, delay)], envelope.metadata)

    def record(
        self, connection: Any, events: Sequence[Event], *, key: str, stream: str, before: int
    ) -> tuple[Metadata, ...] | Awaitable[tuple[Metadata, ...]]:
        """Publish events of an aggregate, each of which makes a version of it. `Journal.append` does.

        Args:
            connection: A session or a connection in a transaction; if it is asynchronous, the call is awaited.
            events: The events.
            key: The aggregate's key.
            stream: The aggregate's name.
            before: The version before the events.

        Returns:
            The events' metadata.

        Raises:
            Conflict: A version is there already.
            OutsideTransaction: Nothing would commit the events.
            PublishError: One can never be sent.
        """
        settings, now = self._settings, datetime.now(UTC)
        outgoing = list[Outgoing]()
        for version, event in enumerate(events, before + 1):
            envelope = seal(as_published(event, settings.publisher.versions), source=self._source, key=key, now=now)
            check_limits(envelope, None, max_body=settings.worker.max_body, max_delay=settings.broker.max_delay)
            outgoing.append(Outgoing(envelope, None, stream, version))
        metadata = tuple(each.envelope.metadata for each in outgoing)
        return self._write(connection, outgoing, metadata) if outgoing else metadata

    def _of_django(self) -> Any:
        """The connection of Django's that this thread has."""
        if self._using is None:
            raise ConfigurationError("Outbox: publish takes a connection and an event; for Django, Outbox takes using=")
        from django.db import connections

        return connections[self._using]

    def _write(self, connection: Any, events: list[Outgoing], written: T) -> T | Awaitable[T]:
        """Return what was `written`; on an asynchronous connection, to be awaited."""
        if _IS_SILENT.get():
            raise PublishError("a projection publishes nothing: making it anew would repeat it; use a handler")
        schema = self._settings.sql.schema
        if kinds_of(connection) & {"sqlalchemy.Session", "sqlalchemy.AsyncSession"}:
            from .sessions import pending_of

            pending = pending_of(getattr(connection, "sync_session", connection))
            for event in events:
                pending.add(event, schema)
            return written
        executor = executor_of(connection)
        if not executor.is_within():
            raise OutsideTransaction("the event would not be committed with anything; publish it inside a transaction")
        try:
            writing = executor.play(statements_of(executor.dialect, schema).inserts(events))
        except Exception as error:  # noqa: BLE001 (it is raised again)
            raise_explained(error)
        if executor.execute_async is not None:
            return _awaited(writing, written)
        executor.written(schema)
        return written


async def _awaited(writing: Awaitable[Any], written: T) -> T:
    try:
        await writing
    except Exception as error:  # noqa: BLE001 (it is raised again)
        raise_explained(error)
    return written
