"""The relay: it sends what was committed, confirmed, in the order of each key, and then deletes it, unless it is kept.

Nothing is deleted before it is confirmed, and only while the lease of its shard lasts. A relay that dies in between
leaves its rows to the next one, which sends them again with the same ids.
"""

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from ..broker import Broker, Clock, Pause, delayed_to_stream, ladder, sleep
from ..config import Settings
from ..events import (
    BrokerUnavailable,
    Envelope,
    Metadata,
    NotConnected,
    PublishTimeout,
    TopologyError,
    Unroutable,
    headers,
)
from ..publisher import Requests, message_for, send
from ..sql import Database, Row, Steps, first_line, time_of
from ..telemetry import (
    Emit,
    OutboxCounted,
    OutboxHeld,
    OutboxUnrouted,
    Relayed,
    RelayFailed,
    RelayJoined,
    Spans,
    heed_cancellation,
)
from .hand import Chain, Hand, Noting, lane_of
from .leases import Leases
from .sequencer import Sequencer

_BATCH = 1000  # rows read at once
_IN_FLIGHT = 300  # more would wait for each other at the broker's channel
_FEW = 1000  # unsent events at which the next ones are read, where more wait: so many that the sending never pauses
_FIRST_LOOK = 0.02  # seconds until the next look where nothing was there; it doubles up to POLL
_COUNT_EVERY = 5.0
_REFUSED = Pause(0.5, 60.0)  # until an event that was refused is tried again
_TROUBLE = Pause(0.2, 5.0)  # until a database that is unavailable is asked again


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
        self._timeout = min(settings.broker.publish_timeout, settings.sql.lease / 2)
        """Seconds that one publish may take: what is sent by `send_until` is confirmed while the leases last."""
        kept = database.kept(settings.sql.schema) if settings.sql.keeps else None
        self._statements = kept or database.statements(settings.sql.schema)
        self._sequencer = None if kept is None else Sequencer(kept)
        self.leases = Leases(database, self._statements, settings.sql.lease)
        self._requests = Requests(settings, clock, emit)
        self._wake = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()
        self._is_stopping = False
        self._has_ladder = False
        self._hand = Hand()
        self._workers = 0
        self._refusals: dict[int, int] = {}
        """Of the events in hand that are held, how often each was refused, by this relay or another."""
        self._count_due = 0.0
        self._oldest = 0.0
        self.on_positions: tuple[Callable[[], None], ...] = ()
        """Called when events got positions."""

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
        self._emit(RelayJoined(self.database.name, self.leases.token))
        look, failures = _FIRST_LOOK, 0
        while not self._is_stopping:
            heed_cancellation()
            pause: float | None = None
            try:
                is_idle = not await self._turn()
                self.error = None
            except Exception as error:  # noqa: BLE001 (whatever it is, the rows are still there)
                self.error, pause = first_line(error), _TROUBLE.seconds(failures, self._luck())
                self._emit(RelayFailed(self.database.name, self.error, pause))
            if pause is not None:
                failures += 1
                await self._rest(pause)
                continue
            failures = 0
            look = min(2 * look, self._settings.sql.poll) if is_idle else _FIRST_LOOK
            if is_idle and await self._rest(look):
                look = _FIRST_LOOK
        with suppress(Exception):  # they end by themselves
            await self.leases.leave()
        await self._requests.close()

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
        """Read, send, note, until nothing is left to send. Returns how many events were sent, or got positions last.

        What is in flight when the database fails is waited for, and noted by the next turn.
        """
        if self.leases.is_due:
            await self.leases.keep()
        if time.monotonic() >= self._count_due:
            await self._count()
        failure: Exception | None = None
        sent = 0
        try:
            async with asyncio.TaskGroup() as sending:
                try:
                    sent = await self._pump(sending)
                except Exception as error:  # noqa: BLE001 (raised once the sending has ended)
                    failure = error
        finally:
            if self._hand.unsent:  # this task is cancelled
                self._hand = Hand()
        if failure is not None:
            raise failure
        return sent if self._sequencer is None else sent + self._sequencer.fresh

    async def _pump(self, sending: asyncio.TaskGroup) -> int:
        """Keep events in flight: the next ones are read while the last few hundred are sent."""
        hand, sent = self._hand, 0
        if not (self.leases.shards or hand or self._sequencer):  # each commit wakes it, and it would find nothing
            return 0
        rows = await self._exchange(then_read=True)
        while rows or hand:
            for _ in range(min(hand.add(rows), _IN_FLIGHT - self._workers)):
                self._workers += 1
                sending.create_task(self._work())
            is_more = len(rows) == _BATCH and not self.leases.is_due
            await hand.until_few(min(_FEW, max(0, hand.unsent - 1)) if is_more else 0)
            sent += len(hand.confirmed) + len(hand.refused)
            is_last = self._is_stopping or self.leases.is_due or not hand.confirmed
            rows = await self._exchange(then_read=not is_last)
        return sent

    async def _exchange(self, *, then_read: bool) -> list[Row]:
        """Note what became of the events in hand, and read what comes next, in one transaction."""
        hand, noting = self._hand, self._hand.noting()
        rows = await self.database.run(self._note(noting, hand.reading(), then_read=then_read))
        hand.noted(noting)
        for seq in (*noting.confirmed, *noting.refused):
            self._refusals.pop(seq, None)
        self._refusals.update({row[0]: row[15] for row in rows if row[15] is not None})
        if ages := hand.take_ages():
            self._emit(Relayed(self.database.name, ages))
        if then_read and self._sequencer is not None and self._sequencer.fresh:
            for call in self.on_positions:
                call()
        return rows

    def _read(self, in_hand: list[int]) -> Steps[list[Row]]:
        if self._sequencer is not None:
            yield from self._sequencer.steps()
        wanted = {"token": self.leases.token, "ahead": self._settings.broker.max_delay, "most": _BATCH}
        return (yield from self._statements.reading(wanted | {"in_hand": json.dumps(in_hand)}))

    def _note(self, noting: Noting, in_hand: list[int], *, then_read: bool) -> Steps[list[Row]]:
        """Note what was confirmed, hold what was refused, read what comes next."""
        if noting.confirmed:
            seqs = {"seqs": json.dumps(noting.confirmed), "token": self.leases.token}
            yield self._statements.sent, seqs
            if self._refusals:
                yield self._statements.free, seqs
        for seq, (row, error) in noting.refused.items():
            pause = _REFUSED.seconds(self._refusals.get(seq, 0), 1.0)
            key = lane_of(row)
            self._emit(OutboxHeld(self.database.name, key, row[1], str(error), pause))
            held = {"seq": str(seq), "key": key, "event_id": row[1], "pause": pause, "error": str(error)[:1000]}
            yield self._statements.hold, held | {"token": self.leases.token}
        return (yield from self._read(in_hand)) if then_read else []

    async def _work(self) -> None:
        """Send one chain after the other, until none waits."""
        try:
            while (waiting := self._hand.begin()) is not None:
                await self._send_chain(*waiting)
        finally:
            self._workers -= 1

    async def _send_chain(self, lane: str, chain: Chain) -> None:
        """Send the events of one key, each once its predecessor is confirmed. The rest waits after one that is not."""
        while chain:
            row = chain[0][0]
            try:
                envelope = await self._begun(row)
                if self._is_stopping or time.monotonic() > self.leases.send_until:
                    return self._hand.give_up(lane)
                await self._publish(row, envelope)
            except (NotConnected, PublishTimeout, BrokerUnavailable, TopologyError, TimeoutError):
                return self._hand.give_up(lane)
            except Exception as error:  # noqa: BLE001 (one event must not stop those of other keys)
                return self._hand.refuse(lane, error)
            self._hand.confirm(lane)
        return None

    async def _begun(self, row: Row) -> Envelope:
        """Return the event of a row. If it begins a followed request, that has begun: whoever handles the event finds
        it on its board. Each relay that sends it again opens the same entries again."""
        envelope = _envelope(row)
        if headers.FOLLOW in envelope.headers and envelope.metadata.caused_by is None:
            await self._requests.begin(envelope, _delay(row))
        return envelope

    async def _publish(self, row: Row, envelope: Envelope) -> None:
        """Publish one event. Nobody listens for it: it rests where delayed events do in that case."""
        message = message_for(envelope, self._settings, _delay(row))
        if message.exchange != self._settings.broker.exchange:
            await self._declare_ladder()
        sending = self._settings.publisher
        try:
            await send(self._broker, message, sending, timeout=self._timeout, emit=self._emit, spans=self._spans)
            return
        except Unroutable:
            self._emit(OutboxUnrouted(self.database.name, row[1], row[2]))
        await self._declare_ladder()
        origin = {headers.EXCHANGE: message.exchange, headers.ROUTING_KEY: message.routing_key}
        resting = replace(message, exchange=ladder.UNROUTED, headers={**message.headers, **origin})
        await self._broker.publish(resting, timeout=self._timeout)

    async def _declare_ladder(self) -> None:
        if not self._has_ladder:
            broker = self._settings.broker
            async with asyncio.timeout(self._timeout):
                topology = ladder.ladder(broker.max_delay) + delayed_to_stream(broker)
                await self._broker.declare(topology, broker.topology)
            self._has_ladder = True

    async def _count(self) -> None:
        try:
            pending, oldest, held = await self.database.run(self._figures(), within=_COUNT_EVERY)
        finally:
            self._count_due = time.monotonic() + _COUNT_EVERY  # where it fails, the turns between two counts send
        self._oldest = oldest
        self._emit(OutboxCounted(self.database.name, pending, oldest, held, len(self.leases.shards)))

    def _figures(self) -> Steps[tuple[int, float, int]]:
        [(pending, oldest, held)] = yield self._statements.figures, {}
        return pending, oldest or 0.0, held


def _delay(row: Row) -> float | None:
    return row[12] if row[12] is not None and row[12] > 0 else None


def _envelope(row: Row) -> Envelope:
    _, event_id, event_type, version, key, source, correlation_id, causation_id, at, extra, content_type, body, *_ = row
    carried: dict[str, Any] = {} if extra == "{}" else json.loads(extra)
    metadata = Metadata(
        event_id=event_id,
        event_type=event_type,
        time=time_of(at),
        version=version,
        source=source,
        key=key,
        correlation_id=correlation_id,
        causation_id=causation_id,
        traceparent=carried.pop(headers.TRACEPARENT, None),
        caused_by=row[14],
    )
    return Envelope(metadata, bytes(body), content_type, carried)
