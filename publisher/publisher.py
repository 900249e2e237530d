"""Confirmed publishing for any program: a worker, a web application, a script."""

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from types import TracebackType
from typing import Self

from ..broker import REAL, Broker, Clock, events_exchange, ladder, open_broker
from ..config import Settings, load_settings
from ..events import Envelope, Event, Message, Metadata, PublishError, as_published, seal
from ..telemetry import Emit, FactLog, open_spans
from .dispatch import message_for
from .sending import send

PIPELINE = 500
"""How many events of one `publish_many` are on their way at once."""


class Publisher:
    """Publishes events; each call returns once the broker confirmed and routed the message.

    `async with Publisher() as publisher: await publisher.publish(event)`. `source` names this program in
    the events it publishes. One publisher serves a whole process: it is safe to use from many tasks of one loop.

    While the broker is away, a publish waits for the connection, at most `HOLDFAST_BROKER__PUBLISH_TIMEOUT`
    seconds, then raises `NotConnected` (never sent) or `PublishTimeout` (sent, no answer: it may be in a queue).
    Publish again with the metadata of the first try, so that listeners recognise the event.

    Entering waits at most `HOLDFAST_BROKER__CONNECT_TIMEOUT` seconds for a broker that is away and then goes on
    without it; it raises `BrokerUnavailable` where login or virtual host are refused, and `TopologyError`.
    """

    def __init__(
        self, settings: Settings | None = None, *, source: str = "", emit: Emit | None = None, clock: Clock = REAL
    ) -> None:
        self._settings = settings or load_settings()
        self._source = source
        self._clock = clock
        self._emit = emit or FactLog()
        self._broker: Broker | None = None
        self._has_ladder = False
        self._spans = open_spans()

    async def __aenter__(self) -> Self:
        self._broker = await open_broker(self._settings, self._emit)
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._settings.broker.connect_timeout):
                    await self._declare_exchange()
        except BaseException:
            await self._broker.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        broker, self._broker = self._broker, None
        if broker is not None:
            await broker.close()

    async def publish(
        self,
        event: Event | Envelope,
        *,
        metadata: Metadata | None = None,
        delay: float | None = None,
        at: datetime | None = None,
    ) -> Metadata:
        """Publish one event, now, after `delay` seconds or `at` a time (with time zone). Returns its metadata.

        `metadata` replaces the generated one, for instance to publish again after `PublishTimeout`.

        Raises `Unroutable`, `PublishRefused`, `PublishTimeout` (outcome unknown), `NotConnected`, `TooLarge`;
        all are `PublishError`.
        """
        if at is not None:
            delay = _seconds_until(at, delay, self._clock.now())
        envelope = event if isinstance(event, Envelope) else self._seal(event)
        if metadata is not None:
            envelope = replace(envelope, metadata=metadata)
        await self._send(message_for(envelope, self._settings, delay), delayed=bool(delay))
        return envelope.metadata

    async def publish_many(
        self, events: Iterable[Event | Envelope], *, delay: float | None = None
    ) -> list[Metadata | PublishError]:
        """Publish many events, pipelined. One result per event, in order: its metadata or its error."""
        results: dict[int, Metadata | PublishError] = {}
        numbered = enumerate(events)

        async def work(source: Iterator[tuple[int, Event | Envelope]]) -> None:
            for number, event in source:
                try:
                    results[number] = await self.publish(event, delay=delay)
                except PublishError as error:
                    results[number] = error

        async with asyncio.TaskGroup() as group:
            for _ in range(PIPELINE):
                group.create_task(work(numbered))
        return [results[number] for number in range(len(results))]

    def _seal(self, event: Event) -> Envelope:
        published = as_published(event, self._settings.publisher.versions)
        return seal(published, source=self._source, now=self._clock.now())

    async def _send(self, message: Message, *, delayed: bool) -> None:
        if self._broker is None:
            raise PublishError("the publisher is not open; use it inside `async with Publisher() as publisher:`")
        timeout = self._settings.broker.publish_timeout
        if delayed and not self._has_ladder:
            await self._declare_ladder(timeout)
        await send(self._broker, message, timeout=timeout, emit=self._emit, spans=self._spans)

    async def _declare_exchange(self) -> None:
        assert self._broker is not None
        await self._broker.declare(events_exchange(self._settings.broker.exchange), self._settings.broker.topology)

    async def _declare_ladder(self, timeout: float) -> None:
        assert self._broker is not None
        with suppress(TimeoutError):  # the publish that follows says what is wrong
            async with asyncio.timeout(timeout):
                levels = ladder.ladder(self._settings.broker.max_delay)
                await self._broker.declare(levels, self._settings.broker.topology)
                self._has_ladder = True


def _seconds_until(at: datetime, delay: float | None, now: datetime) -> float:
    if delay is not None:
        raise PublishError("give delay or at, not both")
    if at.tzinfo is None:
        raise PublishError(f"at={at.isoformat()} has no time zone; write datetime(..., tzinfo=UTC)")
    return max(0.0, (at - now).total_seconds())
