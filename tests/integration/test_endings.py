"""Every way a delivery can end, on the real broker."""

import asyncio
import itertools
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from running import a_broker, a_worker, depth, publish_all, running, take
from waiting import Facts

from holdfast import Context, Event, Publisher, Reject, Retry, RetryLater, Settings, Worker, fixed
from holdfast.broker import Broker
from holdfast.events import Message, uuid7
from holdfast.events import headers as h
from holdfast.telemetry import Settled

pytestmark = pytest.mark.timeout(120)


class Paid(Event, type="paid"):
    order: str
    amount: float = 1.0


SOON = fixed(0.1, jitter=False)


async def the_dead_letter(worker: Worker, settings: Settings) -> Message:
    async with a_broker(settings) as broker:
        [letter] = await take(broker, f"{worker.name}.handle.dead", 1)
    assert await depth(settings, f"{worker.name}.handle") == 0
    return letter


async def send(broker: Broker, settings: Settings, body: bytes, **changes: Any) -> None:
    values = {
        "exchange": settings.broker.exchange,
        "routing_key": "paid",
        "message_id": uuid7(),
        "type": "paid",
    } | changes
    await broker.publish(Message(body, **values), timeout=10)


async def test_an_event_that_is_handled_leaves_nothing_behind(settings: Settings) -> None:
    facts, seen = Facts(), []
    worker = a_worker(settings, facts)

    @worker.handler(Paid)
    async def handle(event: Paid, ctx: Context) -> None:
        seen.append((event.order, ctx.attempt, ctx.redelivered, ctx.queue, ctx.metadata.event_type))

    async with running(worker):
        await publish_all(settings, [Paid(order="o-1")])
        await facts.settled("handled")

    assert seen == [("o-1", 1, False, f"{worker.name}.handle", "paid")]
    assert await depth(settings, f"{worker.name}.handle") == await depth(settings, f"{worker.name}.handle.dead") == 0


async def test_a_failure_past_the_last_attempt_is_dead_lettered_with_the_final_error(settings: Settings) -> None:
    facts, started = Facts(), datetime.now(UTC)
    worker = a_worker(settings, facts)

    @worker.handler(Paid, retry=Retry(attempts=3, backoff=SOON))
    async def handle(event: Paid, ctx: Context) -> None:
        raise ValueError(f"attempt {ctx.attempt} failed")

    async with running(worker):
        await publish_all(settings, [Paid(order="o-1")])
        await facts.settled("dead_lettered")
        letter = await the_dead_letter(worker, settings)

    told = letter.headers
    assert [fact.outcome for fact in await facts.settled(count=3)] == ["postponed", "postponed", "dead_lettered"]
    assert told[h.REASON] == "exhausted"
    assert (told[h.ERROR_TYPE], told[h.ERROR_MESSAGE]) == ("ValueError", "attempt 3 failed")
    assert 'raise ValueError(f"attempt' in told[h.TRACEBACK]
    assert (told[h.HANDLER], told[h.ATTEMPT], told[h.QUEUE]) == ("handle", 3, f"{worker.name}.handle")
    assert (told[h.EXCHANGE], told[h.ROUTING_KEY]) == (settings.broker.exchange, "paid")
    assert started < datetime.fromisoformat(told[h.FIRST_FAILED_AT]) < datetime.fromisoformat(told[h.FAILED_AT])
    assert len(told[h.FINGERPRINT]) == 16 and "holdfast/" in told[h.WORKER]
    assert told[h.EVENT_ID] == (await facts.settled())[0].metadata.event_id
    assert json.loads(letter.body) == {"order": "o-1", "amount": 1.0}
    assert not [name for name in told if name.startswith("x-")]


async def test_a_rejected_event_is_dead_lettered_at_once(settings: Settings) -> None:
    facts = Facts()
    worker = a_worker(settings, facts)

    @worker.handler(Paid)
    async def handle(event: Paid) -> None:
        raise Reject("customer is gone")

    async with running(worker):
        await publish_all(settings, [Paid(order="o-1")])
        await facts.settled("dead_lettered")
        letter = await the_dead_letter(worker, settings)

    assert (letter.headers[h.REASON], letter.headers[h.ERROR_MESSAGE]) == ("refused", "customer is gone")
    assert letter.headers[h.ATTEMPT] == 1


@pytest.mark.parametrize(
    ("body", "changes", "reason", "fault"),
    [
        (b"not json", {}, "unreadable", "JSON"),
        (b'{"amount": "much"}', {}, "unreadable", "order: Field required; amount: Input should be a valid number"),
        (b"{}", {"content_type": "application/x-python-serialize"}, "unreadable", "content type"),
        (b"{}", {"type": "nobody.knows"}, "unknown-type", "'nobody.knows' is not an event of handler 'handle'"),
        (b'{"order":"o"}', {"headers": {h.EVENT_VERSION: 2}}, "unsupported-version", "version 2 is newer than 1"),
        (b'{"order":"o"}', {"headers": {h.EVENT_VERSION: "v1"}}, "unsupported-version", "no whole number from 1"),
        (b'{"order":"' + b"x" * 2_000_000 + b'"}', {}, "too-large", "HOLDFAST_WORKER__MAX_BODY"),
    ],
    ids=["not-json", "wrong-shape", "pickle", "unknown", "newer", "no-version", "too-large"],
)
async def test_a_message_that_cannot_become_an_event_is_dead_lettered_unrun_and_untouched(
    settings: Settings, body: bytes, changes: dict[str, Any], reason: str, fault: str
) -> None:
    facts, runs = Facts(), []
    worker = a_worker(settings, facts)

    @worker.handler(Paid)
    async def handle(event: Paid) -> None:
        runs.append(event)

    async with running(worker), a_broker(settings) as broker:
        await send(broker, settings, body, **changes)
        await facts.settled("dead_lettered")
        letter = await the_dead_letter(worker, settings)

    assert (letter.headers[h.REASON], runs) == (reason, [])
    assert fault in letter.headers[h.ERROR_MESSAGE]
    assert letter.body == body


async def test_a_handler_that_never_returns_times_out_and_is_dead_lettered(settings: Settings) -> None:
    facts, cancelled = Facts(), asyncio.Event()
    worker = a_worker(settings, facts)

    @worker.handler(Paid, timeout=0.2, retry=Retry(attempts=2, backoff=SOON))
    async def handle(event: Paid) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with running(worker):
        await publish_all(settings, [Paid(order="o-1")])
        await facts.settled("dead_lettered")
        letter = await the_dead_letter(worker, settings)

    assert cancelled.is_set()
    assert letter.headers[h.REASON] == "exhausted"
    assert letter.headers[h.ERROR_TYPE].endswith("HandlerTimeout")
    assert "0.2 s" in letter.headers[h.ERROR_MESSAGE]


async def test_an_error_text_of_5_mb_is_cut_to_head_and_tail(settings: Settings) -> None:
    facts = Facts()
    worker = a_worker(settings, facts)

    @worker.handler(Paid, retry=Retry(attempts=2, backoff=SOON))
    async def handle(event: Paid) -> None:
        raise RuntimeError("BEGIN" + "x" * 5_000_000 + "END")

    async with running(worker):
        await publish_all(settings, [Paid(order="o-1")])
        await facts.settled("dead_lettered")
        letter = await the_dead_letter(worker, settings)

    message = letter.headers[h.ERROR_MESSAGE]
    assert message.startswith("BEGIN") and message.endswith("END") and len(message) < 5_000


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    "error",
    [
        SystemExit(3),
        KeyboardInterrupt(),
        GeneratorExit(),
        asyncio.CancelledError(),
        MemoryError(),
        RecursionError(),
        StopIteration(),
        StopAsyncIteration(),
        Unspeakable(),
        ExceptionGroup("several", [ValueError("a"), OSError("b")]),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("blocking", [False, True], ids=["async", "def"])
async def test_whatever_a_handler_raises_the_worker_lives_and_the_event_is_dead_lettered(
    settings: Settings, error: BaseException, blocking: bool
) -> None:
    facts = Facts()
    worker = a_worker(settings, facts)
    policy = Retry(attempts=1)

    if blocking:

        @worker.handler(Paid, retry=policy, name="handle")
        def handle(event: Paid) -> None:
            if event.order == "bad":
                raise error
    else:

        @worker.handler(Paid, retry=policy, name="handle")
        async def handle_async(event: Paid) -> None:
            if event.order == "bad":
                raise error

    async with running(worker):
        await publish_all(settings, [Paid(order="bad"), Paid(order="good")])
        await facts.settled("dead_lettered")
        await facts.settled("handled")
        letter = await the_dead_letter(worker, settings)

    assert letter.headers[h.REASON] == "exhausted"


async def test_a_handler_decides_when_to_be_run_again(settings: Settings) -> None:
    facts, times = Facts(), []
    worker = a_worker(settings, facts)

    @worker.handler(Paid)
    async def handle(event: Paid, ctx: Context) -> None:
        times.append(asyncio.get_running_loop().time())
        if ctx.attempt == 1:
            raise RetryLater(after=1.1)

    async with running(worker):
        await publish_all(settings, [Paid(order="o-1")])
        await facts.settled("handled")

    assert [fact.delay for fact in facts.all if isinstance(fact, Settled)] == [1.1, None]
    assert times[1] - times[0] > 1.0


async def test_runs_in_place_do_not_count_as_attempts_and_forget_what_they_published(settings: Settings) -> None:
    facts, runs = Facts(), itertools.count(1)
    worker = a_worker(settings, facts)

    class Receipt(Event, type="receipt"):
        run: int

    received = []

    @worker.handler(Paid, retry=Retry(attempts=1, immediate=2))
    async def handle(event: Paid, ctx: Context) -> None:
        run = next(runs)
        await ctx.publish(Receipt(run=run))
        assert ctx.attempt == 1
        if run < 3:
            raise OSError("not yet")

    @worker.handler(Receipt)
    async def file(event: Receipt) -> None:
        received.append(event.run)

    async with running(worker):
        await publish_all(settings, [Paid(order="o-1")])
        await facts.settled("handled", count=2)

    assert received == [3]


async def test_an_event_older_than_its_policy_allows_expires_unrun(settings: Settings) -> None:
    facts, runs = Facts(), []
    worker = a_worker(settings, facts)

    @worker.handler(Paid, retry=Retry(max_age=60))
    async def handle(event: Paid) -> None:
        runs.append(event)

    async with running(worker), a_broker(settings) as broker:
        yesterday = (datetime.now(UTC) - timedelta(days=1)).isoformat()
        await send(broker, settings, b'{"order":"o"}', headers={h.EVENT_TIME: yesterday})
        await facts.settled("dead_lettered")
        letter = await the_dead_letter(worker, settings)

    assert (letter.headers[h.REASON], runs) == ("expired", [])


async def test_a_handlers_events_are_sent_only_if_it_succeeds_with_the_same_ids_again(settings: Settings) -> None:
    facts, ids, received = Facts(), [], []
    worker = a_worker(settings, facts)

    class Receipt(Event, type="receipt"):
        order: str

    @worker.handler(Paid, retry=Retry(backoff=SOON))
    async def handle(event: Paid, ctx: Context) -> None:
        ids.append((await ctx.publish(Receipt(order=event.order))).event_id)
        if ctx.attempt == 1:
            raise OSError("after publishing")

    @worker.handler(Receipt)
    async def file(event: Receipt, ctx: Context) -> None:
        received.append(ctx.metadata)

    async with running(worker):
        async with Publisher(settings) as publisher:
            sent = await publisher.publish(Paid(order="o-1"))
        await facts.settled("handled", count=2)

    assert len(received) == 1 and ids[0] == ids[1] == received[0].event_id
    assert (received[0].causation_id, received[0].correlation_id) == (sent.event_id, sent.correlation_id)
    assert received[0].source == worker.name


async def test_publishing_from_a_handler_to_nobody_fails_the_handler(settings: Settings) -> None:
    facts = Facts()
    worker = a_worker(settings, facts)

    class Unheard(Event): ...

    @worker.handler(Paid, retry=Retry(attempts=1))
    async def handle(event: Paid, ctx: Context) -> None:
        await ctx.publish(Unheard())

    async with running(worker):
        await publish_all(settings, [Paid(order="o-1")])
        await facts.settled("dead_lettered")
        letter = await the_dead_letter(worker, settings)

    assert letter.headers[h.ERROR_TYPE].endswith("Unroutable")


async def test_one_listener_that_fails_for_ever_does_not_delay_the_others(settings: Settings) -> None:
    facts, handled = Facts(), []
    few = settings.worker.model_copy(update={"concurrency": 8, "grace": 0})
    worker = a_worker(settings.model_copy(update={"worker": few}), facts)

    @worker.handler(Paid, retry=Retry(attempts=100, backoff=SOON))
    async def always_fails(event: Paid) -> None:
        raise OSError("for ever")

    @worker.handler(Paid, timeout=30)
    async def hangs(event: Paid) -> None:
        await asyncio.Event().wait()

    @worker.handler(Paid)
    async def works(event: Paid) -> None:
        handled.append(event.order)

    async with running(worker):
        orders = [f"o-{n}" for n in range(200)]
        await publish_all(settings, [Paid(order=order) for order in orders])
        await facts.settled("handled", count=200)

    assert sorted(handled) == sorted(orders)


async def test_dict_and_bytes_handlers_take_messages_of_any_producer(settings: Settings) -> None:
    facts, seen = Facts(), []
    worker = a_worker(settings, facts)

    @worker.handler("paid")
    async def as_dict(event: dict[str, Any], ctx: Context) -> None:
        seen.append(event)

    @worker.handler("#")
    async def as_bytes(event: bytes, ctx: Context) -> None:
        seen.append((event, ctx.metadata.event_type))

    async with running(worker), a_broker(settings) as broker:
        await send(broker, settings, b'{"a": [1]}', type=None, message_id=None)
        await facts.settled("handled", count=2)

    assert {"a": [1]} in seen and (b'{"a": [1]}', "paid") in seen
