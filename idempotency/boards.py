"""Boards as publishers and workers keep them. Nothing waits for a store that stays unavailable."""

import asyncio
import json
import math
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Final

from ..broker import Clock, Pause, matches
from ..events import Metadata
from ..telemetry import Emit, Unfollowed, heed_cancellation
from .availability import StoreUnavailable
from .board import LIFE, Board, Entry

_FRESH: Final = 1.0  # seconds for which the listeners are not looked up again
_KNOWN_FOR: Final = 30 * 86400.0  # seconds for which a queue counts as a listener after it was announced
_AGAIN: Final = Pause(1.0, 30.0)  # between two looks for steps that are to be written
_PENDING: Final = 10_000  # steps that are kept for a store that is unavailable
_TOGETHER: Final = 500

Source = tuple[str, str]
"""An exchange, and the binding key of a queue there."""


class Boards:
    """The boards of one publisher or worker, whose events go to `exchange`."""

    def __init__(self, board: Board, exchange: str, clock: Clock, emit: Emit) -> None:
        self._board = board
        self._exchange = exchange
        self._clock = clock
        self._emit = emit
        self._lock = asyncio.Lock()
        self._available = _Available(clock)
        self._fresh_until = -math.inf
        self._bound: list[tuple[str, list[Source]]] = []
        self._queues: dict[str, tuple[str, ...]] = {}
        self._pending: OrderedDict[tuple[str, str], tuple[Entry, float]] = OrderedDict()

    @property
    def is_beside_claims(self) -> bool:
        """Whether a completion and a mark are recorded in one step."""
        return self._board.is_beside_claims

    async def open(
        self, request: str, events: Iterable[tuple[Metadata, float | None]], cause: Entry | None = None
    ) -> bool:
        """Put events on a board before they are published, each with its delay, for every queue that takes it. Returns
        False where the store is unavailable: they are published, and are not followed."""
        parent = ("", "") if cause is None else (cause.queue, cause.event_id)
        events, longest = list(events), 0.0
        entries: list[Entry] = []
        try:
            with self._available:
                for metadata, delay in events:
                    due = self._clock.now().timestamp() + delay if delay else None
                    longest = max(longest, delay or 0.0)
                    event_id, kind = metadata.event_id, metadata.event_type
                    queues = await self._listeners(kind)
                    entries += [Entry(queue, event_id, kind, "open", "", due, parent) for queue in queues]
                field = None if cause is None else cause.field
                await self._board.open(request, entries, cause=field, life=LIFE + longest)
        except StoreUnavailable as error:
            if events:
                first: Entry | Metadata = cause or events[0][0]
                self._emit(Unfollowed(first.event_type, first.event_id, request, str(error)))
            return not events
        return True

    async def mark(self, request: str, entry: Entry, *, delay: float = 0.0) -> None:
        """Note what became of an event: now, or when the store is back. `delay`: the seconds it waits."""
        self._pending.pop((request, entry.field), None)
        try:
            with self._available:
                await self._board.mark(request, entry, life=LIFE + delay)
        except StoreUnavailable:
            self.mark_later(request, entry, delay=delay)

    def mark_later(self, request: str, entry: Entry, *, delay: float = 0.0) -> None:
        """Note it when `flush` is called next. Of too many the oldest is forgotten: it stays open."""
        self._pending[request, entry.field] = (entry, LIFE + delay)
        if len(self._pending) > _PENDING:
            self._pending.popitem(last=False)

    async def keep(self, listeners: Mapping[str, list[Source]]) -> None:
        """Announce the queues of a worker once a day, and note what a store that was unavailable has missed. Without
        end."""
        due, failures = -math.inf, 0
        while True:
            heed_cancellation()
            try:
                if self._clock.time() >= due:
                    await self._announce(listeners)
                    due = self._clock.time() + 86400.0
                await self.flush()
                failures = 0
            except StoreUnavailable:  # publishers report it
                failures += 1
            await asyncio.sleep(_AGAIN.seconds(failures, 0.5))

    async def flush(self) -> None:
        """Note what a store that was unavailable has missed. Raises `StoreUnavailable`."""
        while self._pending:
            chunk = list(self._pending.items())[:_TOGETHER]
            marks = (self._board.mark(request, entry, life=life) for (request, _), (entry, life) in chunk)
            await asyncio.gather(*marks)
            for key, item in chunk:
                if self._pending.get(key) is item:
                    del self._pending[key]

    async def close(self, patience: float) -> None:
        """Note what is still to be noted, for at most `patience` seconds."""
        with suppress(StoreUnavailable, TimeoutError):
            async with asyncio.timeout(patience):
                await self.flush()

    async def _look_up(self) -> None:
        with self._available:
            known = {queue: json.loads(text) for queue, text in (await self._board.listeners()).items()}
        oldest = self._clock.now().timestamp() - _KNOWN_FOR
        self._bound = [
            (queue, [(str(exchange), str(pattern)) for exchange, pattern in it["sources"]])
            for queue, it in sorted(known.items())
            if it["at"] > oldest
        ]
        self._queues = {}
        self._fresh_until = self._clock.time() + _FRESH

    async def _announce(self, listeners: Mapping[str, list[Source]]) -> None:
        now = self._clock.now().timestamp()
        for queue, sources in listeners.items():
            await self._board.announce(queue, json.dumps({"at": round(now), "sources": sources}))

    async def _listeners(self, event_type: str) -> tuple[str, ...]:
        """Return the queues that take events of a type, as their workers have announced."""
        if self._clock.time() >= self._fresh_until:
            async with self._lock:
                if self._clock.time() >= self._fresh_until:
                    await self._look_up()
        if event_type not in self._queues:
            if len(self._queues) > 1_000:
                self._queues.clear()
            self._queues[event_type] = tuple(
                queue for queue, sources in self._bound if any(self._leads(source, event_type) for source in sources)
            )
        return self._queues[event_type]

    def _leads(self, source: Source, event_type: str) -> bool:
        exchange, pattern = source
        return exchange == self._exchange and matches(pattern, event_type)


class _Available:
    """A block that asks the store. For a second after it raised `StoreUnavailable` the next ones raise it at once:
    events do not wait one after the other."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._closed_until = -math.inf
        self._error = ""

    def __enter__(self) -> None:
        if self._clock.time() < self._closed_until:
            raise StoreUnavailable(self._error)

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, StoreUnavailable):
            self._error, self._closed_until = str(error), self._clock.time() + _FRESH
