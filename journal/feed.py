"""Feeding: a new listener gets the events of the past from the journal, and those of the present from its queue.

Its queue is bound first, and only then the sequencer's position is read. An event with a later position gets it, and is
sent, after the binding: it is in the queue. Events up to that position are published to the queue. Of those in between
some come both ways, with one event id, and are handled once. `journal.tape_feed` does the same without a database.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..broker import Broker, matches
from ..config import Settings
from ..consumer import HandlerSpec, topology_of
from ..events import Envelope, in_form, to_message
from ..sql import NOTHING_READ, Database, Row, Steps
from .recorded import Recorded, recorded_of

_BATCH = 500


@dataclass(frozen=True, slots=True)
class Fed:
    """How many events of each type were fed, or would be, up to which position."""

    types: dict[str, int]
    position: int


class Feed:
    """Feeds the past to the queue of one handler. One that was interrupted goes on where it was."""

    def __init__(self, spec: HandlerSpec, database: Database[Any], broker: Broker, settings: Settings) -> None:
        self._spec = spec
        self._database = database
        self._broker = broker
        self._settings = settings
        self._history = database.history(settings.sql.schema)
        self._cursor, self._end = f"feed:{spec.queue}", f"feed-end:{spec.queue}"

    async def run(self, *, since: float | None, progress: Callable[[int], None] = lambda _: None) -> Fed:
        """Bind the queue, and publish the past to it. `since` is in seconds since 1970; None for the first event.

        Raises `PublishError`, `TopologyError` and `DatabaseUnavailable`; what was fed by then is remembered.
        """
        broker = self._settings.broker
        await self._broker.declare(topology_of([self._spec], broker), broker.topology)
        after, end = await self._database.run(self._begin())
        fed = Counter[str]()
        while True:
            rows = await self._database.run(self._page(after, end, since))
            events = [event for event in map(recorded_of, rows) if self._takes(event)]
            await asyncio.gather(*(self._publish(event) for event in events))
            fed.update(event.metadata.event_type for event in events)
            after = end if len(rows) < _BATCH else int(rows[-1][0])
            await self._database.run(self._move(after))
            progress(sum(fed.values()))
            if after >= end:
                return Fed(dict(fed), end)

    async def rehearse(self, *, since: float | None) -> Fed:
        """Return what would be fed now. Nothing is bound, published or remembered."""
        fed, after, end = Counter[str](), 0, await self._database.run(self._last())
        while after < end:
            rows = await self._database.run(self._page(after, end, since))
            fed.update(event.metadata.event_type for event in map(recorded_of, rows) if self._takes(event))
            after = end if len(rows) < _BATCH else int(rows[-1][0])
        return Fed(dict(fed), end)

    def _takes(self, event: Recorded) -> bool:
        event_type = event.metadata.event_type
        return not event.is_erased and any(matches(pattern, event_type) for pattern in self._spec.events)

    async def _publish(self, event: Recorded) -> None:
        envelope = Envelope(event.metadata, event.body, event.content_type)
        if event.content_type == "application/json":  # as a relay sends it; other bodies came from other producers
            envelope = in_form(envelope, self._settings.publisher.format)
        message = to_message(envelope, exchange="", routing_key=self._spec.queue)
        await self._broker.publish(message, timeout=self._settings.broker.publish_timeout)

    def _last(self) -> Steps[int]:
        return int((yield self._history.bounds, {})[0][0])

    def _begin(self) -> Steps[tuple[int, int]]:
        """Return where to go on, and where the past ends: at the position that was read after the first binding."""
        history, last = self._history, (yield from self._last())
        for name in (self._cursor, self._end):
            yield history.enter_projection, {"name": name}
        [(end,)] = yield history.cursor, {"name": self._end}
        if end == NOTHING_READ:
            end = last
            yield history.move_projection, {"name": self._end, "position": str(end)}
        [(after,)] = yield history.cursor, {"name": self._cursor}
        return max(after, 0), end

    def _page(self, after: int, end: int, since: float | None) -> Steps[list[Row]]:
        history, params = self._history, {"after": str(after), "up_to": str(end), "most": _BATCH}
        conditions = [history.after, history.up_to, history.is_due]
        if since is not None:
            conditions.append(history.since)
        return (yield history.select(*conditions), params if since is None else {**params, "since": since})

    def _move(self, position: int) -> Steps[None]:
        yield self._history.move_projection, {"name": self._cursor, "position": str(position)}
