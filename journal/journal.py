"""`Journal`: loading aggregates from their events, and appending what they recorded."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, overload

from pydantic import ValidationError

from ..config import Settings, load_settings
from ..consumer import record, running
from ..events import ConfigurationError, Metadata
from ..sql import Database, History, Outbox, Steps, executor_of
from .aggregate import Aggregate, is_worth_a_snapshot, replay, resume, take_recorded, version_of
from .projection import Projection
from .recorded import recorded_of

if TYPE_CHECKING:
    from ..sql.executors import Awaited, Direct

A = TypeVar("A", bound=Aggregate)
_SNAPSHOT_EVERY = 100  # events
_FIRST_LOOK, _LONGEST_LOOK = 0.005, 0.1  # seconds between two looks for what a projection has reached


class Journal:
    """The events that a database keeps (`HOLDFAST_SQL__KEEP=forever`).

    Args:
        database: The database.
        settings: The settings; by default they are read from the environment.
        source: The name of this program in events that are appended outside of a handler.

    Raises:
        ConfigurationError: Events are not kept forever.
    """

    def __init__(self, database: Database[Any], settings: Settings | None = None, *, source: str = "") -> None:
        self._database = database
        self._settings = settings or load_settings()
        self._outbox = Outbox(self._settings, source=source)
        if self._settings.sql.keep != math.inf:
            raise ConfigurationError("Journal: set HOLDFAST_SQL__KEEP=forever; its events would be deleted")

    @overload
    def load(self, aggregate: type[A], key: object, session: "Direct") -> A: ...
    @overload
    def load(self, aggregate: type[A], key: object, session: "Awaited") -> Awaitable[A]: ...
    @overload
    def load(self, aggregate: type[A], key: object, session: object) -> Any: ...
    def load(self, aggregate: type[A], key: object, session: object) -> Any:
        """Return an aggregate, made from its events. One without events is in its first state.

        With an asynchronous session the call is awaited.

        Args:
            aggregate: The class.
            key: The value of its key field.
            session: The session or connection in whose transaction the events are read.

        Raises:
            UnknownType: The aggregate has no method for one of its events.
            UnsupportedVersion: It has none for the version of one.
            Unreadable: The body of one does not decode.
            Erased: The body of one was erased.
        """
        executor = executor_of(session)
        history = History(executor.dialect, self._settings.sql.schema)
        return executor.play(_load(aggregate, key, history))

    async def reached(self, projection: Projection, event_id: str, *, within: float) -> bool:
        """Return whether a projection has handled an event, and wait for it.

        An event that is not in this journal is never reached.

        Args:
            projection: The projection.
            event_id: The id of the event.
            within: Seconds to wait at most.

        Raises:
            DatabaseUnavailable: The database cannot be reached.
        """
        history = self._database.history(self._settings.sql.schema)

        def look() -> Steps[bool]:
            return bool((yield history.reached, {"name": projection.cursor, "event_id": event_id}))

        limit, pause = time.monotonic() + within, _FIRST_LOOK
        while not await self._database.run(look()):
            left = limit - time.monotonic()
            if left <= 0:
                return False
            await asyncio.sleep(min(pause, left))
            pause = min(2 * pause, _LONGEST_LOOK)
        return True

    @overload
    def append(self, aggregate: Aggregate, session: "Direct") -> tuple[Metadata, ...]: ...
    @overload
    def append(self, aggregate: Aggregate, session: "Awaited") -> Awaitable[tuple[Metadata, ...]]: ...
    @overload
    def append(self, aggregate: Aggregate, session: object) -> Any: ...
    def append(self, aggregate: Aggregate, session: object) -> Any:
        """Append what the aggregate has recorded to its events, in the same transaction, and publish it.

        With an asynchronous session the call is awaited.

        Args:
            aggregate: The aggregate.
            session: The session or connection in whose transaction the events are written.

        Returns:
            The metadata of the events.

        Raises:
            Conflict: Another transaction has appended to the aggregate since it was loaded. A handler with `within=`
                runs again at once, without spending an attempt. Elsewhere it is raised by the commit of a session, or
                by this call on a connection.
        """
        executor = executor_of(session)
        before, events = take_recorded(aggregate)
        key, stream = str(getattr(aggregate, aggregate.__aggregate_key__)), aggregate.__stream__
        context = running()
        written: Any
        if context is None:
            written = self._outbox.record(session, events, key=key, stream=stream, before=before)
        else:
            written = record(context, events, key=key, stream=stream, before=before)
        keep = partial(_keep_snapshot, aggregate, key, History(executor.dialect, self._settings.sql.schema))
        is_kept = is_worth_a_snapshot(aggregate, _SNAPSHOT_EVERY)
        if executor.execute_async is not None:
            return _end(written, partial(executor.play, keep()) if is_kept else None)
        if is_kept:
            executor.play(keep())
        return written


async def _end(written: Any, keep: Callable[[], Awaitable[None]] | None) -> tuple[Metadata, ...]:
    """Return what was written, once it is, and a snapshot too. What a session writes when it commits is not awaited."""
    metadata: tuple[Metadata, ...] = await written if isinstance(written, Awaitable) else written
    if keep is not None:
        await keep()
    return metadata


def _load(aggregate: type[A], key: object, history: History) -> Steps[A]:
    names = {"key": str(key), "stream": aggregate.__stream__}
    rows = yield history.snapshot, names
    loaded = _resumed(aggregate, *rows[0]) if rows else None
    if loaded is None:
        loaded = aggregate(**{aggregate.__aggregate_key__: key})
    for row in (yield history.of_aggregate, {**names, "after": version_of(loaded)}):
        replay(loaded, recorded_of(row))
    return loaded


def _resumed(aggregate: type[A], version: int, shape: int, state: str) -> A | None:
    """The aggregate of a snapshot; None where that has another shape."""
    if shape != aggregate.__shape__:
        return None
    try:
        loaded = aggregate.model_validate_json(state)
    except ValidationError:
        return None
    resume(loaded, version)
    return loaded


def _keep_snapshot(aggregate: Aggregate, key: str, history: History) -> Steps[None]:
    state, stream, shape = aggregate.model_dump_json(), aggregate.__stream__, aggregate.__shape__
    snapshot = {"stream": stream, "key": key, "version": version_of(aggregate), "shape": shape, "state": state}
    yield history.keep_snapshot, snapshot
