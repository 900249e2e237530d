"""`Harness`: workers on the in-memory broker, in virtual time, for a test."""

import random
from contextlib import AsyncExitStack
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypeVar

from ..broker import dead_letter_queue
from ..broker.memory import MemoryBroker, host
from ..consumer import Worker
from ..dead_letters.replay import replayed, target_of
from ..events import (
    ConfigurationError,
    Envelope,
    Event,
    Headers,
    HoldfastError,
    Message,
    Metadata,
    Unroutable,
    read_metadata,
    uuid7,
)
from ..idempotency import Progress, progress_of, share
from ..publisher import Publisher
from ..sagas import Saga, Standing
from ..telemetry import Settled
from .passage import Passage
from .records import Balance, DeadLettered, Published, Retried, Run, balance_of, read_dead, read_published, troubles
from .replica import Replica, stage_for

S = TypeVar("S", bound=Saga)

__tracebackhide__ = True  # pytest shows the line of the test instead


class Harness:
    """Runs workers as they run in production, on a broker, claims and a clock of the test's own.

    `async with Harness(worker) as h: await h.publish(OrderCreated(...)); await h.settle()`, then look at `h.handled`,
    `h.published`, `h.retries` and `h.dead_letters`. It works on any event loop. Time passes in `settle` and `advance`
    alone, and then at once; only the handlers' own waiting is real.

    Args:
        *workers: The workers, one or more: several are a chain of services.
        patience: Seconds of real time after which a handler that has not ended is taken to hang: time passes until
            its time-out.
        seed: Where the jitter of delays falls; the same delays for the same seed.

    Raises:
        ConfigurationError: What is given is no worker.
        HandlerFailed: On leaving: an assertion failed inside a handler.
        AssertionError: On leaving: what was acked, queued and dead-lettered together is not what was published.
    """

    _session: MemoryBroker

    def __init__(self, *workers: Worker, patience: float = 10.0, seed: int = 0) -> None:
        if not workers or not all(isinstance(worker, Worker) for worker in workers):
            raise ConfigurationError(f"Harness({', '.join(map(repr, workers))}): give it one Worker or more")
        self._workers = workers
        self._stage = stage_for(workers, patience=patience, seed=seed)
        self._clock, self._server = self._stage.clock, self._stage.server
        self._seen, self._faults = self._stage.seen, self._stage.faults
        self._replicas: list[Replica] = []
        self._passage = Passage(self._stage, self._replicas)
        settings = self._stage.settings_for(workers[0])
        self._exchange = settings.broker.exchange
        self._publisher = Publisher(settings, source="test", emit=lambda _: None, clock=self._clock)
        self._own: set[str] = set()
        self._dead: list[DeadLettered] | None = None
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        host(self._server)
        share(self._server.url, self._stage.claims)
        self._session = MemoryBroker(self._server.url)
        self._stack.push_async_callback(self._session.close)
        for worker in self._workers:
            self._server.hear_all(worker.settings.broker.exchange)
        await self._stack.enter_async_context(self._publisher)
        try:
            for worker in self._workers:
                self._replicas.append(Replica(worker, self._stage))
            await self._passage.quiet()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        balance = await self._stop()
        if error is not None:
            error.add_note(f"The harness: {balance.text()}{troubles(self.retries, self.dead_letters)}")
            return
        self._seen.raise_failures()
        for replica in self._replicas:
            replica.task.result()
        balance.check()

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
        """Publish an event as `Publisher.publish` does.

        Args:
            event: The event, or an envelope that is ready to travel.
            metadata: Metadata in place of new ones.
            event_id: The event's id in place of a new one.
            headers: Headers of the application.
            delay: Seconds of virtual time until it is delivered.
            at: The time, with a time zone, at which it is delivered.
            follow: Whether the request that it begins is followed (`progress`).

        Returns:
            The metadata of the event.

        Raises:
            Unroutable: No handler here takes its type.
            PublishError: As `Publisher.publish`.
        """
        self._check_running()
        sent = await self._publisher.publish(
            event, metadata=metadata, event_id=event_id, headers=headers, delay=delay, at=at, follow=follow
        )
        self._check_taken(sent)
        return sent

    async def publish_raw(self, event_type: str, body: bytes, **properties: Any) -> None:
        """Publish bytes as any other program may.

        Args:
            event_type: The property `type` and the routing key.
            body: The body.
            **properties: Those of `holdfast.events.Message`, such as `headers`, `message_id` and `content_type`.

        Raises:
            Unroutable: No handler here takes the type.
        """
        self._check_running()
        given = {"type": event_type, "message_id": uuid7(), "content_type": "application/json"} | properties
        message = Message(body, self._exchange, event_type, **given)
        await self._session.publish(message, timeout=None)
        self._check_taken(read_metadata(message, self._clock.now(), self._workers[0].settings.worker.names))

    async def settle(self, *, within: float = 30 * 86400.0) -> None:
        """Let everything happen that is to happen, retries and delayed events too.

        Args:
            within: The most seconds of virtual time that may pass.

        Raises:
            HandlerFailed: An assertion failed inside a handler.
            AssertionError: It does not come to an end.
        """
        await self._passage.settle(within)
        self._seen.raise_failures()

    async def advance(self, seconds: float) -> None:
        """Let so much time pass, with all that falls into it.

        Args:
            seconds: Seconds of virtual time, 0 or more.

        Raises:
            HandlerFailed: An assertion failed inside a handler.
            ConfigurationError: It is no number of seconds.
        """
        if not 0 <= seconds < float("inf"):
            raise ConfigurationError(f"advance({seconds!r}): give seconds, 0 or more")
        await self._passage.advance(seconds)
        self._seen.raise_failures()

    async def progress(self, request: str | None) -> Progress:
        """Return the progress of a followed request, as `Following.progress` does.

        Args:
            request: The request: `correlation_id` of what `publish` returned.
        """
        board = self._stage.claims.board
        return progress_of(await board.read(request or ""), self._clock.now().timestamp())

    def saga(self, saga: type[S], key: str) -> Standing[S]:
        """Return where a saga stood after the last `settle` or `advance`, with its steps.

        Args:
            saga: The class of the saga.
            key: Which one: the value of the field that its `key=` names.

        Raises:
            AssertionError: There was none.
        """
        standing: Standing[S] = self._seen.saga(saga, key)
        return standing

    @property
    def now(self) -> datetime:
        """The time of day, as the workers see it."""
        return self._clock.now()

    @property
    def runs(self) -> list[Run]:
        """Each time a handler was called, in order, whatever came of it."""
        return list(self._seen.runs)

    @property
    def handled(self) -> list[Run]:
        """Each event that was handled and acked, once for each handler, in order."""
        return list(self._seen.handled)

    @property
    def retries(self) -> list[Retried]:
        """Each attempt that failed and was followed by another, in order."""
        return list(self._seen.retries)

    @property
    def settled(self) -> list[Settled]:
        """How each delivery ended, as the log tells it: duplicates and waits too."""
        return list(self._seen.settled)

    @property
    def published(self) -> list[Published]:
        """What the application published, in order; not what `publish` of this harness did."""
        now, handlers = self._clock.now(), self._seen.handlers.values()
        theirs = [taken.message for taken in self._server.taken if taken.event_id not in self._own]
        return [read_published(message, now, handlers) for message in theirs]

    @property
    def dead_letters(self) -> list[DeadLettered]:
        """What is in the dead-letter queues."""
        if self._dead is not None:
            return list(self._dead)
        now, handlers = self._clock.now(), self._seen.handlers
        return [read_dead(message, n, now, handlers[queue]) for n, (queue, message) in enumerate(self._server.dead())]

    async def hand_over(self) -> None:
        """Let each worker stop as on SIGTERM, and start again: queues of ordered handlers change their owner."""
        self._check_running()
        for number, replica in enumerate(self._replicas):
            await replica.stop()
            replica.task.result()
            self._replicas[number] = Replica(self._workers[number], self._stage)
        await self._passage.quiet()

    async def replay(self, dead: DeadLettered) -> None:
        """Replay a dead letter, as `holdfast dead replay` does.

        Args:
            dead: One of `dead_letters`.
        """
        self._check_running()
        queue = dead_letter_queue(dead.queue)
        target = target_of(dead.letter, queue)
        await self._session.publish(
            replayed(dead.letter, operation="harness", target=target, forced=False), timeout=None
        )
        self._server.take_dead(queue, dead.letter.message)

    def crash_before_ack(self, times: int = 1) -> None:
        """Let the worker die when it is about to record an event as done, and start it again.

        What it had taken is delivered again, flagged as redelivered: a handler that had done its work does it twice.

        Args:
            times: How often, from now on.
        """
        self._faults.crashes += times

    def lose_connection(self, times: int = 1) -> None:
        """Let the connection break when a message is about to be acked.

        What was not settled is delivered again; the worker lives, and consumes again.

        Args:
            times: How often, from now on.
        """
        self._faults.losses += times

    def duplicate_every_message(self) -> None:
        """Let each event reach its queues twice from now on, as from a producer that lost a confirm."""
        self._server.takes_twice = True

    def reorder(self, seed: int) -> None:
        """Let deliveries be handled one at a time from now on, in an order by chance.

        Args:
            seed: What decides the order; the same order for the same seed.
        """
        self._faults.order = random.Random(seed)

    async def _stop(self) -> Balance:
        """Stop the workers, keep what is asked for afterwards, and close."""
        try:
            for replica in self._replicas:
                await replica.stop()
            self._dead = self.dead_letters
            return balance_of(self._server, self._seen.settled, self._dead)
        finally:
            await self._stack.aclose()

    def _check_running(self) -> None:
        if not self._replicas or self._dead is not None:
            raise HoldfastError("this harness does not run; use it inside `async with Harness(worker) as h:`")

    def _check_taken(self, sent: Metadata) -> None:
        self._own.add(sent.event_id)
        if not any(taken.event_id == sent.event_id and taken.queues for taken in reversed(self._server.taken)):
            raise Unroutable(f"no handler of this harness takes {sent.event_type!r}")
