"""The harness and the real broker agree: each scenario is played on both, and ends the same."""

import asyncio
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

import pytest
from builders import NOON
from running import a_broker, a_worker, running, take
from waiting import Facts

from holdfast import (
    Context,
    Event,
    Metadata,
    Publisher,
    Reject,
    Retry,
    RetryLater,
    Settings,
    Worker,
    exponential,
    fixed,
)
from holdfast.broker import Binding, Broker, Queue, Topology
from holdfast.dead_letters.letter import read_letter
from holdfast.events import Message, read_metadata
from holdfast.telemetry import Settled
from holdfast.testing import Harness


class Placed(Event, type="agree.placed", key="order_id"):
    order_id: str


class Paid(Event, type="agree.paid", key="order_id"):
    order_id: str


class Stage(Protocol):
    """Where a scenario publishes."""

    async def publish(self, event: Event, *, metadata: Metadata, delay: float | None = None) -> Metadata: ...

    async def publish_raw(self, event_type: str, body: bytes, **properties: Any) -> None: ...


@dataclass(frozen=True)
class Scenario:
    """`build` registers handlers, `publish` is what happens."""

    build: Callable[[Worker], None]
    publish: Callable[[Stage], Awaitable[None]]


@dataclass(frozen=True)
class Story:
    """All that both must agree on. `ends`: each delivery's; `published` in the order a listener gets it."""

    ends: list[tuple[Any, ...]]
    published: list[tuple[str, str, str | None]]
    letters: list[tuple[Any, ...]]


def id_of(number: int) -> Metadata:
    """Metadata by which both stages know an event."""
    return Metadata(event_id=f"e-{number}", event_type="agree.placed", time=NOON, key=str(number))


async def place(stage: Stage, *numbers: int, delay: float | None = None) -> None:
    for number in numbers:
        await stage.publish(Placed(order_id=str(number)), metadata=id_of(number), delay=delay)


def success(worker: Worker) -> None:
    @worker.handler(Placed)
    async def charge(event: Placed, ctx: Context) -> None:
        await ctx.publish(Paid(order_id=event.order_id))

    @worker.handler(Placed)
    def tell(event: Placed) -> None: ...


def a_schedule(worker: Worker) -> None:
    @worker.handler(Placed, retry=Retry(attempts=4, backoff=exponential(0.1, jitter=False)))
    async def third_time_lucky(event: Placed, ctx: Context) -> None:
        if ctx.attempt < 3:
            await ctx.publish(Paid(order_id="never sent"))
            raise ConnectionError("the bank is closed")
        await ctx.publish(Paid(order_id=event.order_id))

    @worker.handler(Placed, retry=Retry(attempts=2, backoff=lambda attempt: 0.3, immediate=1))
    async def never(event: Placed) -> None:
        raise ValueError("a total below zero")

    @worker.handler(Placed, retry=Retry(attempts=2))
    async def later(event: Placed, ctx: Context) -> None:
        if ctx.attempt == 1:
            raise RetryLater(0.4)


def refusals(worker: Worker) -> None:
    once = Retry(attempts=2, backoff=fixed(0.1, jitter=False), give_up_on=(KeyError,))

    @worker.handler(Placed, retry=once)
    async def choose(event: Placed) -> None:
        match event.order_id:
            case "1":
                raise Reject("not for us")
            case "2":
                raise KeyError("no such card")
            case "3":
                raise RetryLater(0.1)
            case "4":
                raise SystemExit(3)
            case _:
                raise ConnectionError("down")


def time_out(worker: Worker) -> None:
    @worker.handler(Placed, timeout=0.2, retry=Retry(attempts=2, backoff=fixed(0.1, jitter=False)))
    async def hang(event: Placed) -> None:
        await asyncio.Event().wait()


def old(worker: Worker) -> None:
    @worker.handler(Placed, retry=Retry(attempts=3, max_age=60))
    async def charge(event: Placed) -> None: ...


def plain(worker: Worker) -> None:
    @worker.handler(Placed)
    async def charge(event: Placed) -> None: ...


def unprotected(worker: Worker) -> None:
    @worker.handler(Placed, idempotent=False)
    async def charge(event: Placed, ctx: Context) -> None:
        await ctx.publish(Paid(order_id=event.order_id))


def one_by_one(worker: Worker) -> None:
    @worker.handler(Placed, concurrency=1)
    async def charge(event: Placed, ctx: Context) -> None:
        for part in "abc":
            await ctx.publish(Paid(order_id=f"{event.order_id}{part}"))


def delayed(worker: Worker) -> None:
    @worker.handler(Placed)
    async def charge(event: Placed, ctx: Context) -> None:
        await ctx.publish(Paid(order_id=event.order_id), delay=0.2)

    @worker.handler(Paid)
    async def ship(event: Paid) -> None: ...


async def broken(stage: Stage) -> None:
    await stage.publish_raw("agree.placed", b"{}", message_id="m-1")
    await stage.publish_raw("agree.placed", b"[1", message_id="m-2")
    await stage.publish_raw("agree.placed", b'{"order_id": "1"}', message_id="m-3", type="agree.other")
    await stage.publish_raw("agree.placed", b'{"order_id": "1"}', message_id="m-4", headers={"event-version": 99})
    await stage.publish_raw("agree.placed", b'{"order_id": "1"}', message_id="m-5", content_encoding="gzip")
    await stage.publish_raw("agree.placed", b'{"order_id": "' + b"x" * 5000 + b'"}', message_id="m-6")
    await stage.publish_raw("agree.placed", b'{"order_id": "1", "new": 1}', message_id=None, content_type=None)


async def twice(stage: Stage) -> None:
    for _ in range(2):
        await place(stage, 1)
    await stage.publish(Placed(order_id="another payload"), metadata=id_of(1))


SCENARIOS = {
    "success": Scenario(success, lambda stage: place(stage, 1, 2)),
    "a retry schedule": Scenario(a_schedule, lambda stage: place(stage, 1)),
    "refusals": Scenario(refusals, lambda stage: place(stage, 1, 2, 3, 4, 5)),
    "a time-out": Scenario(time_out, lambda stage: place(stage, 1)),
    "an old event": Scenario(old, lambda stage: place(stage, 1)),
    "broken messages": Scenario(plain, broken),
    "duplicates": Scenario(plain, twice),
    "duplicates of an unprotected handler": Scenario(unprotected, lambda stage: place(stage, 1, 1)),
    "the order of what is published": Scenario(one_by_one, lambda stage: place(stage, 1, 2, 3)),
    "delays": Scenario(delayed, lambda stage: place(stage, 1, delay=0.3)),
}


@pytest.mark.parametrize("name", SCENARIOS)
async def test_a_scenario_ends_the_same_on_the_harness_and_on_rabbitmq(name: str, settings: Settings) -> None:
    small = settings.model_copy(update={"worker": settings.worker.model_copy(update={"max_body": 4000})})

    rehearsed = await on_the_harness(SCENARIOS[name], small)
    expected = {"deliveries": len(rehearsed.ends), "events": len(rehearsed.published)}
    happened = await on_rabbitmq(SCENARIOS[name], small, **expected)

    assert happened == rehearsed
    assert rehearsed.ends, "nothing happened on either"


async def on_the_harness(scenario: Scenario, settings: Settings) -> Story:
    worker = Worker("w", settings=settings)
    scenario.build(worker)

    async with Harness(worker, patience=0.5) as h:
        await scenario.publish(h)
        await h.settle()

    published = [name_of(one.metadata) for one in h.published]
    return Story(ends_of(h.settled), published, letters_of([one.letter.message for one in h.dead_letters]))


async def on_rabbitmq(scenario: Scenario, settings: Settings, *, deliveries: int, events: int) -> Story:
    facts, exchange = Facts(), settings.broker.exchange
    worker = a_worker(settings, facts)
    scenario.build(worker)
    queue = Queue(f"{exchange}.paid", {"x-queue-type": "quorum"})
    async with a_broker(settings) as broker, running(worker), Publisher(settings) as publisher:
        await broker.declare(Topology(queues=(queue,), bindings=(Binding(exchange, queue.name, "agree.paid"),)))
        await scenario.publish(Direct(publisher, broker, exchange))
        settled = await facts.settled(count=deliveries)
        # What is delayed goes to its listeners alone, past the queue that stands in for others.
        seen = [fact.metadata for fact in settled if fact.metadata.event_type == "agree.paid"]
        paid = seen if seen or not events else await listened(broker, queue.name, events)
        died = Counter(fact.queue for fact in settled if fact.outcome == "dead_lettered")
        dead = [message for queue, count in died.items() for message in await take(broker, f"{queue}.dead", count)]
    return Story(ends_of(facts.of(Settled)), [name_of(one) for one in paid], letters_of(dead))


async def listened(broker: Broker, queue: str, count: int) -> list[Metadata]:
    return [read_metadata(message, NOON) for message in await take(broker, queue, count)]


class Direct:
    """The stage that is the real broker."""

    def __init__(self, publisher: Publisher, broker: Broker, exchange: str) -> None:
        self.publish = publisher.publish
        self._broker = broker
        self._exchange = exchange

    async def publish_raw(self, event_type: str, body: bytes, **properties: Any) -> None:
        given = {"type": event_type, "content_type": "application/json"} | properties
        message = Message(body, self._exchange, event_type, **given)
        await self._broker.publish(message, timeout=10)


def ends_of(facts: list[Settled]) -> list[tuple[Any, ...]]:
    """In no order: what runs at once ends as it happens to."""
    return sorted(
        (
            *(fact.handler, fact.metadata.event_id, fact.metadata.causation_id or "", fact.attempt),
            *(fact.outcome, fact.reason or "", fact.delay or 0.0, fact.claim or "", fact.completion or ""),
            *(fact.published, ageless(fact.error or ""), fact.error_type or ""),
        )
        for fact in facts
    )


def ageless(error: str) -> str:
    """The text of an error without the age of an old event: the two stages are played one after the other."""
    return re.sub(r"the event is \d+ s old", "the event is old", error)


def name_of(metadata: Metadata) -> tuple[str, str, str | None]:
    """The ids of what a handler publishes are derived: they are the same on both."""
    return metadata.event_type, metadata.event_id, metadata.key


def letters_of(messages: list[Message]) -> list[tuple[Any, ...]]:
    """All but the frames of the failure, and so its fingerprint: what watches a handler in a harness is one of them."""
    letters = [read_letter(message, key="", position=0) for message in messages]
    return sorted(
        (
            *(letter.handler, letter.event_id, letter.event_type, letter.version, letter.reason, letter.attempt),
            *(letter.error_type, ageless(letter.error_message), letter.is_foreign, letter.message.body),
            sorted(name for name in letter.message.headers if not name.startswith("x-")),
        )
        for letter in letters
    )
