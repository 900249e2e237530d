"""The relay: it sends what was committed, confirmed, in the order of each key, and then deletes it.

Nothing is deleted before it is confirmed, and only while the lease of its shard lasts. A relay that dies in between
leaves its rows to the next one, which sends them again with the same ids.
"""

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from ..broker import Broker, Clock, Pause, ladder, sleep
from ..config import Settings
from ..events import (
    BrokerUnavailable,
    Envelope,
    Message,
    Metadata,
    NotConnected,
    PublishTimeout,
    TopologyError,
    Unroutable,
    headers,
)
from ..publisher import message_for, send
from ..sql import Database, Row, Steps, first_line
from ..telemetry import Emit, OutboxCounted, OutboxHeld, OutboxUnrouted, Relayed, RelayFailed, Spans
from .leases import Leases

_BATCH = 1000  # rows read at once
_IN_FLIGHT = 500
_FIRST_LOOK = 0.02  # seconds until the next look where nothing was there; it doubles up to POLL
_COUNT_EVERY = 5.0
_REFUSED = Pause(0.5, 60.0)  # until an event that was refused is tried again
_TROUBLE = Pause(0.2, 5.0)  # until a database that is unavailable is asked again


@dataclass(slots=True)
class _Sending:
    """A batch: what was confirmed of it, what was refused and why, and the ages at the confirm."""

    confirmed: list[int] = field(default_factory=list)
    refused: dict[int, tuple[Row, Exception]] = field(default_factory=dict)
    ages: list[float] = field(default_factory=list)
    read_at: float = field(default_factory=time.monotonic)


class Relay:
    """Sends the committed events of one database. Any number of relays share its shards.

    `wake` makes it look at once; it looks every `HOLDFAST_SQL__POLL` seconds in any case.
    """

    def __init__(
        self,
        database: Database[Any],
        broker: Broker,
        settings: Settings,
        *,
        emit: Emit,
        spans: Spans,
        clock: Clock,
        luck: Callable[[], float],
    ) -> None:
        self.database = database
        self.error: str | None = None
        self._broker = broker
        self._settings = settings
        self._emit = emit
        self._spans = spans
        self._clock = clock
        self._luck = luck
        self._statements = database.statements(settings.sql.schema)
        self.leases = Leases(database, self._statements, settings.sql.lease)
        self._wake = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()
        self._is_stopping = False
        self._has_ladder = False
        self._refusals: dict[int, int] = {}
        self._count_due = 0.0
        self._oldest = 0.0

    def wake(self) -> None:
        """Look for events now."""
        self._wake.set()

    def stop(self) -> None:
        """Send nothing new; `run` ends once what is in flight is confirmed and noted."""
        self._is_stopping = True
        self._wake.set()

    def missing(self) -> str | None:
        """Return what keeps this relay from being ready."""
        if self.error is not None:
            return f"relay of {self.database.name}: {self.error}"
        if self._oldest > 60:
            return f"relay of {self.database.name}: an event waits for {self._oldest:.0f} s"
        return None

    async def run(self) -> None:
        """Send until `stop` is called."""
        look, failures = _FIRST_LOOK, 0
        while not self._is_stopping:
            try:
                is_idle = not await self._turn()
                self.error, failures = None, 0
            except Exception as error:  # noqa: BLE001 (whatever it is, the rows are still there)
                self.error, pause = first_line(error), _TROUBLE.seconds(failures, self._luck())
                failures += 1
                self._emit(RelayFailed(self.database.name, self.error, pause))
                await self._rest(pause)
                continue
            look = min(2 * look, self._settings.sql.poll) if is_idle else _FIRST_LOOK
            if is_idle and await self._rest(look):
                look = _FIRST_LOOK
        with suppress(Exception):  # they end by themselves
            await self.leases.leave()

    async def drain(self) -> None:
        """Send all that can be sent now."""
        async with self._one_at_a_time:
            while await self._turn():
                pass

    async def _rest(self, seconds: float) -> bool:
        """Wait, or until it is woken. Returns whether it was."""
        if not self._is_stopping:
            self._wake.clear()
        waking = asyncio.ensure_future(self._wake.wait())
        resting = asyncio.ensure_future(sleep(self._clock, seconds))
        try:
            await asyncio.wait({waking, resting}, return_when=asyncio.FIRST_COMPLETED)
            return waking.done()
        finally:
            waking.cancel()
            resting.cancel()

    async def _turn(self) -> int:
        """Read, send, note. Returns how many events were sent."""
        if self.leases.is_due:
            await self.leases.keep()
        if time.monotonic() >= self._count_due:
            await self._count()
        rows = await self.database.run(self._read())
        sent = 0
        while rows and not self._is_stopping:
            sending = await self._send(rows)
            sent += len(sending.confirmed) + len(sending.refused)
            is_last = self.leases.is_due or not sending.confirmed
            rows = await self.database.run(self._note(sending, then_read=not is_last))
            self._report(sending)
        return sent

    def _read(self) -> Steps[list[Row]]:
        ahead = self._settings.broker.max_delay
        return (yield self._statements.read, {"token": self.leases.token, "ahead": ahead, "most": _BATCH})

    def _note(self, sending: _Sending, *, then_read: bool) -> Steps[list[Row]]:
        """Delete what was confirmed, hold what was refused, read what comes next."""
        if sending.confirmed:
            seqs = {"seqs": json.dumps(sending.confirmed), "token": self.leases.token}
            yield self._statements.sent, seqs
            if self._refusals:
                yield self._statements.free, seqs
        for seq, (row, error) in sending.refused.items():
            self._refusals[seq] = failures = self._refusals.get(seq, -1) + 1
            pause = _REFUSED.seconds(failures, 1.0)
            key = _lane(row)
            self._emit(OutboxHeld(self.database.name, key, row[1], str(error), pause))
            held = {"seq": str(seq), "key": key, "event_id": row[1], "pause": pause, "error": str(error)[:1000]}
            yield self._statements.hold, held
        return (yield from self._read()) if then_read else []

    async def _send(self, rows: list[Row]) -> _Sending:
        """Send a batch: the events of a key one after the other, those of other keys meanwhile."""
        sending, chains = _Sending(), dict[str, list[Row]]()
        for row in rows:
            chains.setdefault(_lane(row), []).append(row)
        waiting = iter(chains.values())

        async def work() -> None:
            for chain in waiting:
                await self._send_chain(chain, sending)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(_IN_FLIGHT, len(chains))):
                group.create_task(work())
        return sending

    async def _send_chain(self, chain: list[Row], sending: _Sending) -> None:
        """Send the events of one key, each once its predecessor is confirmed. The rest waits after one that is not."""
        for row in chain:
            if self._is_stopping or time.monotonic() > self.leases.send_until:
                return
            try:
                await self._publish(row)
            except (NotConnected, PublishTimeout, BrokerUnavailable, TopologyError, TimeoutError):
                return
            except Exception as error:  # noqa: BLE001 (one event must not stop those of other keys)
                sending.refused[row[0]] = (row, error)
                return
            sending.confirmed.append(row[0])
            sending.ages.append(row[13] + time.monotonic() - sending.read_at)

    async def _publish(self, row: Row) -> None:
        """Publish one event. Nobody listens for it: it rests where delayed events do in that case."""
        message = message_for(_envelope(row), self._settings, _delay(row))
        if message.exchange != self._settings.broker.exchange:
            await self._declare_ladder()
        try:
            await self._confirmed(message)
        except Unroutable:
            await self._declare_ladder()
            self._emit(OutboxUnrouted(self.database.name, row[1], row[2]))
            origin = {headers.EXCHANGE: message.exchange, headers.ROUTING_KEY: message.routing_key}
            resting = replace(message, exchange=ladder.UNROUTED, headers={**message.headers, **origin})
            await self._broker.publish(resting, timeout=self._timeout)

    @property
    def _timeout(self) -> float:
        return min(self._settings.broker.publish_timeout, self.leases.patience)

    async def _confirmed(self, message: Message) -> None:
        await send(
            self._broker,
            message,
            self._settings.publisher,
            timeout=self._timeout,
            emit=self._emit,
            spans=self._spans,
        )

    async def _declare_ladder(self) -> None:
        if not self._has_ladder:
            broker = self._settings.broker
            async with asyncio.timeout(self._timeout):
                await self._broker.declare(ladder.ladder(broker.max_delay), broker.topology)
            self._has_ladder = True

    def _report(self, sending: _Sending) -> None:
        for seq in sending.confirmed:
            self._refusals.pop(seq, None)
        if sending.ages:
            self._emit(Relayed(self.database.name, tuple(sending.ages)))

    async def _count(self) -> None:
        pending, oldest, held = await self.database.run(self._figures())
        self._oldest, self._count_due = oldest, time.monotonic() + _COUNT_EVERY
        self._emit(OutboxCounted(self.database.name, pending, oldest, held, len(self.leases.shards)))

    def _figures(self) -> Steps[tuple[int, float, int]]:
        [(pending, oldest, held)] = yield self._statements.figures, {}
        return pending, oldest or 0.0, held


def _lane(row: Row) -> str:
    """The key of an event; without one each event is its own."""
    return str(row[4] if row[4] is not None else row[1])


def _delay(row: Row) -> float | None:
    return row[12] if row[12] is not None and row[12] > 0 else None


def _envelope(row: Row) -> Envelope:
    _, event_id, event_type, version, key, source, correlation_id, causation_id, at, extra, content_type, body, *_ = row
    carried = dict[str, Any](json.loads(extra))
    metadata = Metadata(
        event_id=event_id,
        event_type=event_type,
        time=datetime.fromtimestamp(at, UTC),
        version=version,
        source=source,
        key=key,
        correlation_id=correlation_id,
        causation_id=causation_id,
        traceparent=carried.pop(headers.TRACEPARENT, None),
    )
    return Envelope(metadata, bytes(body), content_type, carried)
