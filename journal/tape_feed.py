"""Feeding from the tape: a new listener gets the past from the stream, and the present from its queue.

Its queue is bound first, and then a mark is written to the stream. What was published before the binding is on the
stream before the mark; what was published after it is in the queue. What is in between comes both ways, with one id.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from ..broker import REAL, Broker, Clock, Offset, is_mark, ladder, mark, matches, scanning, sleep, stream_of
from ..config import Settings
from ..consumer import HandlerSpec, topology_of
from ..events import Incoming, Message, origin, read_incoming, uuid7
from ..events import headers as h
from .feed import Fed, publish_past

_BATCH = 500
# Seconds after which all nodes of a cluster route by a binding, and streams have what was routed before it.
_SETTLED = 1.0
_LEEWAY = timedelta(minutes=1)  # of two clocks: a stream that is read from after its mark on never gives the mark


class TapeFeed:
    """Feeds the events of a stream to the queue of one handler. It remembers nothing: one that was interrupted begins
    again, and the claims of the handler drop what comes twice."""

    def __init__(self, spec: HandlerSpec, broker: Broker, settings: Settings, clock: Clock = REAL) -> None:
        self._spec = spec
        self._broker = broker
        self._settings = settings
        self._clock = clock
        self._stream = stream_of(settings.broker)

    async def run(self, *, since: float | None, progress: Callable[[int], None] = lambda _: None) -> Fed:
        """Bind the queue, and publish the past to it. `since` is in seconds since 1970; None for the first event.

        Raises `PublishError`, `TopologyError` and `BrokerUnavailable`.
        """
        broker = self._settings.broker
        await self._broker.declare(topology_of([self._spec], broker), broker.topology)
        await sleep(self._clock, _SETTLED)
        return await self._read(since, self._publish, progress)

    async def rehearse(self, *, since: float | None) -> Fed:
        """Return what would be fed now. Nothing is bound, and no event is published."""

        async def keep(messages: Iterable[Message]) -> None: ...

        return await self._read(since, keep, lambda _: None)

    async def _read(
        self,
        since: float | None,
        publish: Callable[[Iterable[Message]], Awaitable[None]],
        progress: Callable[[int], None],
    ) -> Fed:
        fed = Counter[str]()
        end = await mark(self._broker, self._stream, self._settings.broker.publish_timeout)
        moment = None if since is None else datetime.fromtimestamp(since, UTC)
        begin: Offset = "first" if moment is None else min(moment, datetime.now(UTC)) - _LEEWAY
        async with scanning(self._broker, self._stream, begin) as scan:
            while True:
                taped = await scan.read(_BATCH)
                last = next((one.offset for one in taped if one.message.message_id == end), None)
                past = (one.message for one in taped if last is None or one.offset < last)
                events = [event for event in map(self._incoming, past) if self._takes(event, moment)]
                await publish(self._copy(event.message) for event in events)
                fed.update(event.metadata.event_type for event in events)
                progress(sum(fed.values()))
                if last is not None:
                    return Fed(dict(fed), last)

    async def _publish(self, messages: Iterable[Message]) -> None:
        await publish_past(self._broker, messages, self._spec, self._settings, self._clock)

    def _incoming(self, message: Message) -> Incoming:
        return read_incoming(message, datetime.now(UTC), self._settings.worker.names)

    def _takes(self, event: Incoming, since: datetime | None) -> bool:
        """Return whether the queue is bound for it, and it is no older."""
        key = event.metadata.event_type if event.message.exchange == ladder.OUT else event.message.routing_key
        is_bound = any(matches(pattern, key) for pattern in self._spec.events)
        return is_bound and not is_mark(event.message) and (since is None or event.metadata.time >= since)

    def _copy(self, message: Message) -> Message:
        """Return the message that brings the same event to the queue alone."""
        exchange, routing_key = origin(message)
        ours = {h.EXCHANGE: exchange, h.ROUTING_KEY: routing_key}
        if h.EVENT_ID not in message.headers and message.message_id:
            ours[h.MESSAGE_ID] = message.message_id  # which is the event's id
        theirs = {name: value for name, value in message.headers.items() if h.is_senders(name)}
        headers = {**theirs, **ours}
        return replace(message, exchange="", routing_key=self._spec.queue, headers=headers, message_id=uuid7())
