"""Feeding: a new listener gets the events of the past from the journal, and those of the present from its queue.

Its queue is bound first, and only then the sequencer's position is read. An event with a later position gets it, and is
sent, after the binding: it is in the queue. Events up to that position are published to the queue. Of those in between
some come both ways, with one event id, and are handled once. `journal.tape_feed` does the same without a database.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..broker import REAL, Broker, Clock, matches
from ..config import Settings
from ..consumer import HandlerSpec, topology_of
from ..events import Envelope, Message, in_form, read_incoming, to_message
from ..publisher import one_by_one
from ..sql import NOTHING_READ, Database, Row, Steps
from .recorded import Recorded, recorded_of

_BATCH = 500


@dataclass(frozen=True, slots=True)
class Fed:
    """How many events of each type were fed, or would be, up to which position."""

    types: dict[str, int]
    position: int


async def publish_past(
    broker: Broker, messages: Iterable[Message], spec: HandlerSpec, settings: Settings, clock: Clock
) -> None:
    """Publish events of the past to the queue of a handler, all at once: of an ordered handler, the first of each key,
    and the others once their predecessor is confirmed. A refused one is tried again, as long as a publish may take.

    Raises `PublishError`.
    """
    lanes: Iterable[list[Message]] = [[message] for message in messages]
    if spec.ordered is not None:
        by_key, now, names = dict[str, list[Message]](), clock.now(), settings.worker.names
        for [message] in lanes:
            key = spec.ordered.key_of(read_incoming(message, now, names), spec.read)
            by_key.setdefault(key, []).append(message)
        lanes = by_key.values()
    limit = settings.broker.publish_timeout
    publish = partial(broker.publish, timeout=limit)
    await asyncio.gather(
        *(one_by_one(publish, lane, patience=limit, clock=clock, luck=random.random) for lane in lanes)
    )


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
            await publish_past(self._broker, map(self._copy, events), self._spec, self._settings, REAL)
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

    def _copy(self, event: Recorded) -> Message:
        """Return the message that brings an event to the queue alone."""
        envelope = Envelope(event.metadata, event.body, event.content_type)
        if event.content_type == "application/json":  # as a relay sends it; other bodies came from other producers
            envelope = in_form(envelope, self._settings.publisher.format)
        return to_message(envelope, exchange="", routing_key=self._spec.queue)

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
