"""Confirmed publishing for any program: a worker, a web application, a script."""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from itertools import islice
from types import TracebackType
from typing import Self

from ..broker import REAL, Broker, Clock, delayed_to_stream, events_topology, ladder, open_broker, with_headers
from ..config import Settings, load_settings
from ..events import Envelope, Event, Headers, Metadata, PublishError, as_published, followed, seal, with_metadata
from ..telemetry import Emit, FactLog, fan_out, finish, mark_heard, open_spans
from .dispatch import message_for, send
from .requests import Requests

PIPELINE = 300
"""How many events of one `publish_many` are in flight at once."""


class Publisher:
    """Publishes events; each call returns once the broker confirmed and routed the message.

    `async with Publisher() as publisher: await publisher.publish(event)`. One publisher serves a whole process: it is
    safe to use from many tasks of one loop.

    While the broker is unavailable, a publish waits for the connection, at most `HOLDFAST_BROKER__PUBLISH_TIMEOUT`
    seconds, then raises `NotConnected` (never sent) or `PublishTimeout` (sent, no answer: it may be in a queue).
    Publish again with the metadata of the first try, so that listeners recognise the event.

    Entering waits at most `HOLDFAST_BROKER__CONNECT_TIMEOUT` seconds for an unavailable broker and then goes on
    without it.

    Args:
        settings: The settings; by default those of the environment.
        source: The name of this program in the events that it publishes.
        emit: A function that is called with each fact; by default the log.
        clock: The time of day.

    Raises:
        ConfigurationError: A variable of the environment has a wrong value.
        BrokerUnavailable: On entering: the broker refuses the login or the virtual host.
        TopologyError: On entering: the exchange is missing, or has another type.
    """

    def __init__(
        self, settings: Settings | None = None, *, source: str = "", emit: Emit | None = None, clock: Clock = REAL
    ) -> None:
        self._settings = settings or load_settings()
        self._source = source
        self._clock = clock
        self._emit = FactLog() if emit is None else fan_out((emit,))  # of the user's: it may raise
        self._broker: Broker | None = None
        self._has_ladder = False
        self._declaring: asyncio.Future[None] | None = None
        self._spans = open_spans()
        self._requests = Requests(self._settings, clock, self._emit)

    async def __aenter__(self) -> Self:
        settings = self._settings.broker
        broker = self._broker = await open_broker(self._settings, self._emit)
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(settings.connect_timeout):
                    await broker.declare(events_topology(settings), settings.topology)
        except BaseException:
            await broker.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await finish(self._close())

    async def _close(self) -> None:
        broker, self._broker = self._broker, None
        if self._declaring is not None:
            self._declaring.cancel()
        await self._requests.close()
        if broker is not None:
            await broker.close()

    async def publish(
        self,
        event: Event | Envelope,
        *,
        metadata: Metadata | None = None,
        event_id: str | None = None,
        headers: Headers | None = None,
        delay: float | None = None,
        at: datetime | None = None,
        follow: bool = False,
    ) -> Metadata:
        """Publish one event, now or later.

        Args:
            event: The event, or an envelope that is ready to travel.
            metadata: Metadata in place of new ones, for instance to publish again after `PublishTimeout`. Their type
                and version are those of the event.
            event_id: The event's id, 1 to 255 bytes, in place of a new one. Not together with `metadata`.
            headers: Headers of the application, beside those of Holdfast.
            delay: Seconds until the event is delivered, at most `HOLDFAST_BROKER__MAX_DELAY`, exact to 0.1 s.
            at: The time, with a time zone, at which it is delivered; a time that is past means now. Not together with
                `delay`.
            follow: Whether the request that it begins is followed: it, and all that its handlers publish, until it is
                handled (`Following`). Where the claim store is unavailable, it is published all the same, and `follow`
                of the metadata is None.

        Returns:
            The metadata of the event.

        Raises:
            Unroutable: No queue takes the event, and `HOLDFAST_PUBLISHER__MAY_BE_UNROUTED` does not name its type.
            PublishRefused: The broker refused it.
            PublishTimeout: It was sent and no answer came: it may or may not be in a queue.
            NotConnected: It was not sent: there was no connection in time.
            TooLarge: It was not sent: body or headers are too large.
            PublishError: It was not sent: an argument is wrong, or a field has no JSON form. The other five are
                `PublishError` as well.
            TopologyError: The delay ladder cannot be declared (the first delayed publish).
        """
        settings = self._settings
        if at is not None:
            delay = _seconds_until(at, delay, self._clock.now())
        if not isinstance(event, Envelope):
            event = as_published(event, settings.publisher.versions) if settings.publisher.versions else event
            event = seal(event, source=self._source, event_id=event_id, now=self._clock.now())
        elif event_id is not None:
            raise PublishError("event_id= is for an event; an Envelope has its metadata")
        if metadata is not None:
            if event_id is not None:
                raise PublishError("give metadata or event_id, not both")
            event = with_metadata(event, metadata)
        if headers is not None:
            event = with_headers(event, headers)
        if follow and self._broker is not None:
            first = followed(event)
            event = first if await self._requests.begin(first, delay) else event
        message = message_for(event, settings, delay)
        if self._broker is None:
            raise PublishError("the publisher is not open; use it inside `async with Publisher() as publisher:`")
        timeout = settings.broker.publish_timeout
        if delay and not self._has_ladder:
            await self._declare_ladder(self._broker, timeout)
        await send(
            self._broker,
            message,
            settings.publisher,
            timeout=timeout,
            emit=self._emit,
            spans=self._spans,
            clock=self._clock,
        )
        return event.metadata

    async def publish_many(
        self, events: Iterable[Event | Envelope], *, delay: float | None = None
    ) -> list[Metadata | PublishError]:
        """Publish many events, at most 300 of them in flight.

        Raises any error that is no `PublishError`, among them those of `events` itself; what is in flight then is
        cancelled, and its outcome unknown.

        Args:
            events: The events, or envelopes.
            delay: Seconds until they are delivered, at most `HOLDFAST_BROKER__MAX_DELAY`.

        Returns:
            A result for each event, in order: its metadata or its `PublishError`.
        """
        results: dict[int, Metadata | PublishError] = {}
        numbered = enumerate(events)

        async def work(number: int, event: Event | Envelope) -> None:
            """Publish one event, then whichever comes next, until there are no more."""
            more: tuple[int, Event | Envelope] | None = (number, event)
            while more is not None:
                number, event = more
                try:
                    results[number] = await self.publish(event, delay=delay)
                except PublishError as error:
                    results[number] = error
                more = next(numbered, None)

        try:
            async with asyncio.TaskGroup() as group:
                for number, event in islice(numbered, PIPELINE):
                    group.create_task(work(number, event))
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return [results[number] for number in range(len(results))]

    async def _declare_ladder(self, broker: Broker, timeout: float) -> None:
        """Declare the delay ladder, once for all publishes that wait for it."""
        if self._declaring is None or self._declaring.done():
            settings = self._settings.broker
            topology = ladder.ladder(settings.max_delay) + delayed_to_stream(settings)
            declaration = broker.declare(topology, settings.topology)
            self._declaring = asyncio.ensure_future(declaration)
            self._declaring.add_done_callback(mark_heard)  # the publishes that wait for it may all be over
        declaring = self._declaring  # once it is done, another publish may begin another
        done, _ = await asyncio.wait({declaring}, timeout=timeout)
        if done and not declaring.cancelled():  # or else the publish that follows says what is wrong
            declaring.result()
            self._has_ladder = True


def _seconds_until(at: datetime, delay: float | None, now: datetime) -> float:
    if delay is not None:
        raise PublishError("give delay or at, not both")
    if at.tzinfo is None:
        raise PublishError(f"at={at.isoformat()} has no time zone; write datetime(..., tzinfo=UTC)")
    return max(0.0, (at - now).total_seconds())
