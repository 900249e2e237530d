"""A projection at work: batches of events, each in one transaction with the position that it reaches."""

import asyncio
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..broker import Clock, Pause, sleep
from ..config import Settings
from ..events import Event, HoldfastError
from ..sql import (
    ANSWER,
    Database,
    Opened,
    OpenedAsync,
    OpenerAsync,
    Row,
    Steps,
    TransactionEnded,
    bounded,
    first_line,
    in_thread,
    silenced,
    trouble,
)
from ..telemetry import Emit, Projected, ProjectionStalled, cancellations, end, heed_cancellation, mark_heard
from .projection import Projection
from .recorded import recorded_of

_MOST = 500  # events of one transaction
_PATIENCE = 60.0  # seconds for which PostgreSQL waits for a process within a transaction
_FIRST_LOOK = 0.02
_AGAIN = Pause(0.5, 60.0)


class _Failed(Exception):
    """The event at this index of the batch could not be read, or the projection's function raised for it."""

    def __init__(self, index: int, row: Row | None) -> None:
        self.index, self.row = index, row


@dataclass(frozen=True, slots=True)
class _Call:
    """A call of a function of the projection, for the event at an index; None: before the first one."""

    index: int
    row: Row | None
    run: Callable[[], Any]


@dataclass(frozen=True, slots=True)
class _Batch:
    """Events to be handled, the position that is reached with them, and whether that is the last one there is."""

    rows: list[Row]
    begins: bool
    position: int
    is_last: bool


class Projector:
    """Keeps one projection up to date. Of all processes that run it, one at a time does, by the lock of its row.

    An event whose function raises stops the projection, and is tried again for ever: it is never skipped.
    """

    def __init__(
        self, projection: Projection, database: Database[Any], settings: Settings, emit: Emit, clock: Clock
    ) -> None:
        self.error: str | None = None
        self._projection = projection
        self._database = database
        self._settings = settings
        self._emit = emit
        self._clock = clock
        self._history = database.history(settings.sql.schema)
        self._reading = projection.reading()
        self._types = json.dumps(self._reading.types)
        self._most = _MOST
        self._wake = asyncio.Event()
        self._is_known = False
        self._asked_since = 0.0
        """By the monotonic clock, since when Holdfast awaits an answer of the database."""

    def wake(self) -> None:
        """Look for events now."""
        self._wake.set()

    def missing(self) -> str | None:
        """Return what keeps it from being up to date."""
        return None if self.error is None else f"projection {self._projection.title}: {self.error}"

    async def run(self) -> None:
        """Handle events until this is cancelled."""
        look, failures = _FIRST_LOOK, 0
        while True:
            heed_cancellation()
            self._wake.clear()
            try:
                is_idle = not await self._apart()
                self.error, failures = None, 0
            except Exception as error:  # noqa: BLE001 (whatever it is, the events are still there)
                heed_cancellation()
                if not self._is_alone(error):
                    continue
                pause = _AGAIN.seconds(failures, 1.0)
                failures += 1
                self._report(error, pause)
                await sleep(self._clock, pause)
                continue
            look = min(2 * look, self._settings.sql.poll) if is_idle else _FIRST_LOOK
            if is_idle:
                await self._rest(look)

    async def drain(self) -> None:
        """Handle all events that there are, or all before the first that fails."""
        before = cancellations()
        while True:
            heed_cancellation(before)
            try:
                if not await self._apart():
                    return
            except Exception as error:  # noqa: BLE001 (as above)
                if self._is_alone(error):
                    self._report(error, _AGAIN.seconds(0, 1.0))
                    return

    async def _rest(self, seconds: float) -> None:
        waking = asyncio.ensure_future(self._wake.wait())
        resting = asyncio.ensure_future(sleep(self._clock, seconds))
        try:
            await asyncio.wait({waking, resting}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waking.cancel()
            resting.cancel()

    def _is_alone(self, error: Exception) -> bool:
        """Whether the batch cannot be made smaller. Those before an event that fails are committed without it."""
        if trouble(error, is_ours=not isinstance(error, _Failed)) == "unavailable":
            return True
        before = error.index if isinstance(error, _Failed) else self._most // 2
        is_alone, self._most = self._most == 1, max(before, 1)
        return is_alone

    def _report(self, error: Exception, pause: float) -> None:
        row = error.row if isinstance(error, _Failed) else None
        position, event_id, age = (0, "", 0.0) if row is None else (row[0], row[1], float(row[-1]))
        cause = error.__cause__ or error
        self.error = f"{type(cause).__name__}: {first_line(cause)}"
        if isinstance(error, _Failed):
            self._emit(Projected(self._projection.title, 0, position - 1, age))
        self._emit(ProjectionStalled(self._projection.title, position, event_id, self.error, pause))

    async def _apart(self) -> bool:
        """Take a turn in a task of its own: what the projection's functions leave of cancellations ends with it. Raises
        `TimeoutError` where the database does not answer; the functions may take any time."""
        turn = asyncio.create_task(self._turn(), name=f"holdfast turn of {self._projection.title}")
        turn.add_done_callback(mark_heard)
        self._asked_since = time.monotonic()
        try:
            while not turn.done():
                if time.monotonic() >= self._asked_since + ANSWER:
                    raise TimeoutError(f"no answer within {ANSWER:g} s")
                await asyncio.wait({turn}, timeout=ANSWER)
        finally:
            await end({turn}, patience=0)
        if turn.cancelled():
            raise RuntimeError("it was cancelled from within")
        return turn.result()

    @contextmanager
    def _unasked(self) -> Iterator[None]:
        """Note that nothing is asked of the database by Holdfast."""
        self._asked_since = math.inf
        try:
            yield
        finally:
            self._asked_since = time.monotonic()

    async def _turn(self) -> bool:
        """Handle a batch. Returns whether there may be more."""
        if not self._is_known:
            await self._database.run(self._enter())
            self._is_known = True
        opener = self._database.opener
        if isinstance(opener, OpenerAsync):
            batch = await self._on_loop(opener)
        else:
            batch = await in_thread(self._in_thread, opener)
        if batch is None:
            return False
        self._most = min(_MOST, 2 * self._most)
        lag = 0.0 if batch.is_last or not batch.rows else float(batch.rows[-1][-1])
        self._emit(Projected(self._projection.title, len(batch.rows), batch.position, lag))
        return not batch.is_last

    async def _on_loop(self, opener: OpenerAsync) -> _Batch | None:
        async with opener.begin(self._read()) as opened:
            batch: _Batch | None = opened.first
            if batch is None:
                return None
            with silenced(), self._unasked():
                for call in self._calls(batch, opened.user):
                    try:
                        await call.run()
                        _check(opened)
                    except Exception as error:
                        raise _Failed(call.index, call.row) from error
            opened.last = self._move(batch)
        return batch

    def _in_thread(self, opener: Any) -> _Batch | None:
        with opener.begin(self._read()) as opened:
            batch: _Batch | None = opened.first
            if batch is None:
                return None
            with silenced(), self._unasked():
                for call in self._calls(batch, opened.user):
                    try:
                        call.run()
                        _check(opened)
                    except Exception as error:
                        raise _Failed(call.index, call.row) from error
            opened.last = self._move(batch)
        return batch

    def _calls(self, batch: _Batch, session: Any) -> Iterable[_Call]:
        """Yield the calls of the projection's functions, in order."""
        begin = self._projection.begin
        if batch.begins and begin is not None:
            yield _Call(0, None, partial(begin, session))
        for index, row in enumerate(batch.rows):
            try:
                at = recorded_of(row)
                if at.is_erased:
                    continue
                event: Event = self._reading.read(at)
            except Exception as error:
                raise _Failed(index, row) from error
            yield _Call(index, row, partial(self._projection.function_for(event), event, at, session))

    def _enter(self) -> Steps[None]:
        yield self._history.enter_projection, {"name": self._projection.cursor}

    def _read(self) -> Steps[_Batch | None]:
        return bounded(self._begin(), self._database.dialect, _PATIENCE)

    def _begin(self) -> Steps[_Batch | None]:
        """Lock the row of the projection, and read what comes after its position; None while another process has it."""
        history = self._history
        rows = yield history.projection, {"name": self._projection.cursor}
        if not rows:
            return None
        after = rows[0][0]
        [(last, first, forgot)] = yield history.bounds, {}
        gone = max(last if first is None else first - 1, forgot)
        if after < 0:
            yield history.begin_projection, {"name": self._projection.cursor, "gone": str(gone)}
        elif after < gone:
            [(before,)] = yield history.begun_behind, {"name": self._projection.cursor}
            self._judge(after, gone, int(before or 0))
        page = yield history.page, {"after": str(after), "types": self._types, "most": self._most}
        is_last = len(page) < self._most
        position = max(last, page[-1][0] if page else 0) if is_last else page[-1][0]
        return _Batch(page, after < 0, position, is_last) if position > after else None

    def _judge(self, after: int, gone: int, before: int) -> None:
        """Refuse to go on where events were deleted that this projection had to read: not those up to `before`, which
        it began without."""
        named = self._projection
        if gone > before:
            raise HoldfastError(
                f"the events from position {max(after, before) + 1} to {gone} were deleted before it read them; make "
                f"it of those that are left: holdfast journal rebuild {named.name} --version {named.version}"
            )

    def _move(self, batch: _Batch) -> Steps[None]:
        yield self._history.move_projection, {"name": self._projection.cursor, "position": str(batch.position)}


def _check(opened: Opened | OpenedAsync) -> None:
    if not opened.is_open():
        raise TransactionEnded(
            "the transaction was over before the function was: leave commit and rollback to Holdfast, and try a "
            "statement that may fail in a savepoint"
        )
