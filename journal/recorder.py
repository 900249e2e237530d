"""The recorder: it writes the tape into a journal, each event once, in the order of the stream.

The events and the offset that is reached with them are committed together. So it stops and goes on anywhere, and an
event that is in the journal already, because its own program committed it there, is left out.
"""

import asyncio
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from ..broker import Broker, Clock, Pause, Scan, Taped, is_mark, mark, scanning, sleep, stream_of
from ..config import Settings
from ..events import Envelope, HoldfastError, Message, Names, plain, read_metadata
from ..sql import NOTHING_READ, Database, Outgoing, Steps, first_line
from ..telemetry import (
    Emit,
    TapeFailed,
    TapeGap,
    TapeLate,
    TapeRecorded,
    TapeRecording,
    TapeUnrecorded,
    heed_cancellation,
)
from .archive import write_past

_BATCH = 500  # messages of one transaction
_AGAIN = Pause(0.5, 30.0)
_ANSWER = 30.0  # seconds in which a stream gives a message that it has
_SAY_LATE = 60.0


class _Overtaken(HoldfastError):
    """Another process records the stream."""


class Recorder:
    """Records the stream of the settings. Of several processes one at a time does, and the others look again."""

    def __init__(
        self, database: Database[Any], broker: Broker, settings: Settings, *, emit: Emit, clock: Clock
    ) -> None:
        self.stream = stream_of(settings.broker)
        self.error: str | None = None
        self._name = f"stream:{self.stream}"
        self._database = database
        self._broker = broker
        self._settings = settings
        self._emit = emit
        self._clock = clock
        self._history = database.history(settings.sql.schema)
        self._offset = NOTHING_READ
        self._late_said = float("-inf")

    def missing(self) -> str | None:
        """Return what keeps it from recording."""
        return None if self.error is None else f"stream {self.stream}: {self.error}"

    async def run(self) -> None:
        """Record until this is cancelled."""
        failures = 0
        while True:
            heed_cancellation()
            before = self._offset
            try:
                await self._record(None)
            except Exception as error:  # noqa: BLE001 (whatever it is, the events are still on the stream)
                heed_cancellation()
                self.error = str(error) if isinstance(error, HoldfastError) else first_line(error)
                failures = 0 if self._offset > before else failures
                pause = _AGAIN.seconds(failures, 1.0)
                failures += 1
                self._emit(TapeFailed(self.stream, self.error, pause))
                await sleep(self._clock, pause)

    async def catch_up(self) -> int:
        """Record all that is on the stream now. Returns how many events were not in the journal.

        Raises `HoldfastError`: what was recorded by then stays.
        """
        return await self._record(await mark(self._broker, self.stream, self._settings.broker.publish_timeout))

    async def begin_anew(self) -> None:
        """Have the recording begin with the first message that the stream has."""
        await self._database.run(self._move(NOTHING_READ, None))

    async def _record(self, end: str | None) -> int:
        """Record up to a mark; without one for ever."""
        self._offset, event_id = await self._database.run(self._begin())
        written = 0
        async with scanning(self._broker, self.stream, "first" if self._offset < 0 else self._offset) as scan:
            early = await self._known(scan, event_id) if self._offset >= 0 else []
            self._emit(TapeRecording(self.stream, self._database.name, self._offset))
            while True:
                heed_cancellation()
                taped = early or await scan.read(_BATCH)
                early = []
                written += await self._write(taped)
                self.error = None
                if any(one.message.message_id == end for one in taped if is_mark(one.message)):
                    return written

    async def _known(self, scan: Scan, event_id: str | None) -> list[Taped]:
        """Read again what was recorded last, and return what follows it.

        Raises `HoldfastError` where it is another message: the stream was deleted and made anew.
        """
        anew = (
            f"{self.stream} is not the stream that was recorded up to offset {self._offset}: it was made anew; record "
        )
        anew += "it from its first message: holdfast journal record --from-first"
        try:
            async with asyncio.timeout(_ANSWER):
                first, *rest = await scan.read(_BATCH)
        except TimeoutError:
            raise HoldfastError(anew) from None
        if first.offset > self._offset:  # it was deleted meanwhile
            return [first, *rest]
        if first.offset < self._offset or _id_of(first.message) != event_id:
            raise HoldfastError(anew)
        return rest

    async def _write(self, taped: list[Taped]) -> int:
        """Commit messages, and the offset of the last one. Returns how many events were not in the journal."""
        if not taped:
            return 0
        now = self._clock.now()
        events = list(self._events(taped, now))
        last = taped[-1]
        written = await self._database.run(self._commit(events, last))
        for one in taped:
            if one.offset > self._offset + 1 and self._offset >= 0:
                await self._say_deleted(self._offset + 1, one.offset - 1)
            self._offset = one.offset
        self._emit(TapeRecorded(self.stream, written, last.offset))
        if events:
            self._say_late((now - events[-1].envelope.metadata.time).total_seconds())
        return written

    async def _say_deleted(self, first: int, last: int) -> None:
        """Say that messages were deleted before they were read. RabbitMQ's own entries, such as the one that begins a
        segment, have offsets too, and no reader sees them."""
        async with scanning(self._broker, self.stream, "first") as scan:
            kept = await scan.read(1)
        if kept[0].offset > first:
            self._emit(TapeGap(self.stream, first, last))

    def _events(self, taped: Iterable[Taped], now: datetime) -> Iterable[Outgoing]:
        for one in taped:
            if is_mark(one.message):
                continue
            event = outgoing_from(one.message, now, self._settings.worker.names)
            if (fault := self._fault(event)) is not None:
                self._emit(TapeUnrecorded(self.stream, one.offset, fault))
                continue
            yield event

    def _fault(self, event: Outgoing) -> str | None:
        """Return why no row can be made of an event; None where one can."""
        try:
            _, row = self._history.insert([event])
        except Exception as error:  # noqa: BLE001 (whatever it is, it comes again with each try)
            return first_line(error)
        has_nul = any("\x00" in value for value in row.values() if isinstance(value, str))
        return "its metadata hold a NUL, which no database keeps" if has_nul else None

    def _say_late(self, seconds: float) -> None:
        if seconds > self._settings.broker.stream_age / 2 and self._clock.time() > self._late_said + _SAY_LATE:
            self._late_said = self._clock.time()
            self._emit(TapeLate(self.stream, seconds))

    def _begin(self) -> Steps[tuple[int, str | None]]:
        yield self._history.enter_projection, {"name": self._name}
        [(offset, event_id)] = yield self._history.tape, {"name": self._name}
        return offset, event_id

    def _commit(self, events: list[Outgoing], last: Taped) -> Steps[int]:
        [(offset, _)] = yield self._history.tape, {"name": self._name}
        if offset != self._offset:
            raise _Overtaken("another process records it too; this one goes on where that one stops")
        written = yield from write_past(self._history, events)
        yield from self._move(last.offset, _id_of(last.message))
        return written

    def _move(self, offset: int, event_id: str | None) -> Steps[None]:
        moved = {"name": self._name, "position": str(offset), "event_id": event_id}
        yield self._history.move_tape, moved


def _id_of(message: Message) -> str | None:
    """Return a message's own id as it is kept with the offset: without a NUL, which PostgreSQL refuses."""
    return message.message_id and message.message_id.replace("\x00", "\ufffd")


def outgoing_from(message: Message, now: datetime, names: Names) -> Outgoing:
    """Return the event in a message of any producer, as a journal keeps it: without headers of the application."""
    body, content_type = plain(message)
    return Outgoing(Envelope(read_metadata(message, now, names), body, content_type))
