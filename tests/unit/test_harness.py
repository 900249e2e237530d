"""`holdfast.testing.Harness`: the real life of a delivery, on a clock and a broker of the test's own."""

import asyncio
import random
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from inspect import signature
from pathlib import Path
from typing import Any

import pytest

from holdfast import (
    ConfigurationError,
    Context,
    Event,
    HoldfastError,
    Publisher,
    Reject,
    Retry,
    RetryLater,
    Settings,
    Unroutable,
    Worker,
    exponential,
    fixed,
)
from holdfast.broker.memory import MemoryBroker
from holdfast.idempotency import Acquired, Claim, Lease, OpenClaims, StoreUnavailable, WorkerClaims, no_claims
from holdfast.idempotency.memory import MemoryClaims
from holdfast.testing import HandlerFailed, Harness
from holdfast.testing.clock import VirtualClock


class Placed(Event, type="harness.placed"):
    order_id: str


class Paid(Event, type="harness.paid"):
    order_id: str


class Shipped(Event, type="harness.shipped"):
    order_id: str


def a_worker(name: str = "shop", **arguments: Any) -> Worker:
    return Worker(name, settings=Settings(_env_file=None), **arguments)  # type: ignore[call-arg]


async def one_order(worker: Worker, **arguments: Any) -> Harness:
    """What most tests are: one order, and all that follows from it."""
    async with Harness(worker, **arguments) as h:
        await h.publish(Placed(order_id="o-1"))
        await h.settle()
    return h


async def test_what_was_handled_and_published_is_there_as_values() -> None:
    worker = a_worker()

    @worker.handler(Placed)
    async def charge(event: Placed, ctx: Context) -> None:
        await ctx.publish(Paid(order_id=event.order_id))

    async with Harness(worker) as h:
        sent = await h.publish(Placed(order_id="o-1"))
        await h.settle()

    assert [(run.event, run.handler, run.attempt) for run in h.handled] == [(Placed(order_id="o-1"), "charge", 1)]
    assert [one.event for one in h.published] == [Paid(order_id="o-1")]
    assert h.published[0].metadata.causation_id == sent.event_id
    assert h.published[0].metadata.caused_by == "shop.charge"
    assert h.dead_letters == [] and h.retries == []


def test_it_needs_no_loop_of_its_own() -> None:
    worker = a_worker()
    worker.handler(Placed, retry=Retry(attempts=2, backoff=fixed(3600)))(_fail)

    assert len(asyncio.run(one_order(worker)).dead_letters) == 1


async def _fail(event: Placed) -> None:
    raise ConnectionError("the bank is closed")


async def test_a_retry_schedule_of_hours_passes_in_full_while_nobody_waits() -> None:
    worker = a_worker()
    hours = Retry(attempts=6, backoff=exponential(3600, maximum=20_000, jitter=False))
    worker.handler(Placed, retry=hours)(_fail)

    async with Harness(worker) as h:
        start = h.now
        await h.publish(Placed(order_id="o-1"))
        await h.settle()

    [letter] = h.dead_letters
    assert [one.delay for one in h.retries] == [3600, 7200, 14400, 20000, 20000]
    assert (letter.reason, letter.attempt, letter.error_type) == ("exhausted", 6, "ConnectionError")
    assert letter.event == Placed(order_id="o-1") and letter.error == "the bank is closed"
    assert (h.now - start).total_seconds() == pytest.approx(65_200, rel=0.02)


async def test_an_assertion_that_fails_in_a_handler_fails_the_test_with_both_tracebacks() -> None:
    worker = a_worker()

    @worker.handler(Placed, retry=Retry(attempts=1))
    async def check(event: Placed) -> None:
        assert event.order_id == "o-2", "not the order I know"

    with pytest.raises(HandlerFailed, match=r"handler 'check', attempt 1 of harness\.placed") as failed:
        await one_order(worker)

    cause = failed.value.__cause__
    assert isinstance(cause, AssertionError) and "not the order I know" in str(cause)
    assert failed.traceback[0].name.startswith("test_an_assertion")
    assert cause.__traceback__ is not None and cause.__traceback__.tb_frame.f_code.co_name == "check"


async def test_what_pytest_fails_with_inside_a_def_handler_fails_the_test_at_the_end() -> None:
    worker = a_worker()

    @worker.handler(Placed, retry=Retry(attempts=1))
    def check(event: Placed) -> None:
        pytest.fail("not here")

    async def a_test_that_does_not_settle() -> None:
        async with Harness(worker) as h:
            await h.publish(Placed(order_id="o-1"))
            while not h.dead_letters:
                await asyncio.sleep(0)

    with pytest.raises(HandlerFailed, match="not here"):
        await a_test_that_does_not_settle()


async def test_a_crash_before_the_ack_runs_the_handler_again_and_publishes_the_same_ids() -> None:
    worker = a_worker()

    @worker.handler(Placed)
    async def charge(event: Placed, ctx: Context) -> None:
        await ctx.publish(Paid(order_id=event.order_id))

    async with Harness(worker) as h:
        h.crash_before_ack()
        await h.publish(Placed(order_id="o-1"))
        await h.publish(Placed(order_id="o-2"))
        await h.settle()

    assert len([run for run in h.runs if run.event.order_id == "o-1"]) == 2
    assert sorted(run.event.order_id for run in h.handled) == ["o-1", "o-2"]
    assert len({one.metadata.event_id for one in h.published}) == 2


@pytest.mark.parametrize("idempotent", [True, False])
async def test_a_worker_that_dies_each_time_is_told_from_one_that_is_unlucky(idempotent: bool) -> None:
    worker = a_worker()

    @worker.handler(Placed, idempotent=idempotent)
    async def charge(event: Placed) -> None: ...

    async with Harness(worker) as h:
        h.crash_before_ack(times=3)
        await h.publish(Placed(order_id="o-1"))
        await h.settle()

    if idempotent:
        assert [letter.reason for letter in h.dead_letters] == ["crashed"] and h.handled == []
    else:
        assert len(h.runs) == 4 and len(h.handled) == 1


async def test_a_duplicated_message_is_handled_once() -> None:
    worker = a_worker()

    @worker.handler(Placed)
    async def charge(event: Placed) -> None: ...

    async with Harness(worker) as h:
        h.duplicate_every_message()
        await h.publish(Placed(order_id="o-1"))
        await h.settle()

    assert len(h.handled) == 1
    assert sorted(fact.outcome for fact in h.settled) == ["duplicate", "handled"]


async def test_a_duplicated_message_of_another_producer_is_the_same_event() -> None:
    worker = a_worker()

    @worker.handler(Placed)
    async def charge(event: Placed) -> None: ...

    async with Harness(worker) as h:
        h.duplicate_every_message()
        await h.publish_raw("harness.placed", b'{"order_id": "o-1"}', message_id="m-1")
        await h.settle()

    assert sorted(fact.outcome for fact in h.settled) == ["duplicate", "handled"]


async def test_a_handler_that_is_not_idempotent_is_shown_to_be_so() -> None:
    worker, charged = a_worker(), []

    @worker.handler(Placed, idempotent=False)
    async def charge(event: Placed) -> None:
        charged.append(event.order_id)

    async with Harness(worker) as h:
        h.duplicate_every_message()
        await h.publish(Placed(order_id="o-1"))
        await h.settle()

    assert charged == ["o-1", "o-1"]


async def test_a_lost_connection_delivers_again_and_hurts_nobody() -> None:
    worker = a_worker()

    @worker.handler(Placed, concurrency=1)
    async def charge(event: Placed) -> None: ...

    async with Harness(worker) as h:
        h.lose_connection(times=2)
        for number in range(5):
            await h.publish(Placed(order_id=f"o-{number}"))
        await h.settle()

    assert len(h.runs) == 5 and len({run.event.order_id for run in h.runs}) == 5


async def test_a_redelivery_that_comes_while_its_event_is_being_settled_is_settled_too() -> None:
    worker = a_worker()

    @worker.handler(Placed)
    async def charge(event: Placed) -> None:
        for _ in range(int(event.order_id)):
            await asyncio.sleep(0)

    async with Harness(worker, patience=2) as h:
        h.lose_connection()
        await asyncio.gather(*(h.publish(Placed(order_id=str(number % 8))) for number in range(24)))
        await h.settle()

    assert len(h.runs) == 24


async def order_of(seed: int, *, crashes: int = 0) -> list[str]:
    worker, came = a_worker(), []

    @worker.handler(Placed, prefetch=4)
    async def charge(event: Placed) -> None:
        came.append(event.order_id)

    async with Harness(worker) as h:
        h.reorder(seed)
        h.crash_before_ack(crashes)
        for number in range(8):
            await h.publish(Placed(order_id=str(number)))
        await h.settle()
    assert len(h.handled) == 8
    return came


async def test_messages_come_in_an_order_that_the_seed_decides() -> None:
    orders = {seed: await order_of(seed) for seed in range(4)}

    assert all(sorted(order) == list("01234567") for order in orders.values())
    assert len({tuple(order) for order in orders.values()}) > 1
    assert await order_of(3) == orders[3]
    assert sorted({*await order_of(3, crashes=2)}) == list("01234567")


async def test_several_workers_are_a_chain_of_services() -> None:
    shop, warehouse = a_worker("shop"), a_worker("warehouse")

    @shop.handler(Placed)
    async def charge(event: Placed, ctx: Context) -> None:
        await ctx.publish(Paid(order_id=event.order_id), delay=7200)

    @warehouse.handler(Paid)
    async def ship(event: Paid, ctx: Context) -> None:
        await ctx.publish(Shipped(order_id=event.order_id))

    async with Harness(shop, warehouse) as h:
        h.crash_before_ack()
        h.duplicate_every_message()
        start = h.now
        await h.publish(Placed(order_id="o-1"))
        await h.settle()

    assert [run.handler for run in h.handled] == ["charge", "ship"]
    assert {(type(one.event), one.delay) for one in h.published} == {(Paid, 7200.0), (Shipped, None)}
    assert (h.now - start).total_seconds() >= 7200


async def test_delayed_events_come_when_their_time_has_come() -> None:
    worker = a_worker()

    @worker.handler(Placed)
    async def charge(event: Placed) -> None: ...

    async with Harness(worker) as h:
        await h.publish(Placed(order_id="o-1"), delay=3600)
        await h.advance(3590)
        early = len(h.runs)
        await h.advance(20)

    assert (early, len(h.runs)) == (0, 1)


async def test_an_event_is_forgotten_when_its_window_is_over() -> None:
    worker = a_worker()

    @worker.handler(Placed)
    async def charge(event: Placed) -> None: ...

    async with Harness(worker) as h:
        sent = await h.publish(Placed(order_id="o-1"))
        await h.settle()
        await h.publish(Placed(order_id="o-1"), metadata=sent)
        await h.advance(2 * 86400)
        await h.publish(Placed(order_id="o-1"), metadata=sent)
        await h.settle()

    assert [fact.outcome for fact in h.settled] == ["handled", "duplicate", "handled"]


async def test_max_age_goes_by_the_harness_s_time() -> None:
    worker = a_worker()

    @worker.handler(Placed, retry=Retry(attempts=9, backoff=fixed(3600, jitter=False), max_age=9000))
    async def charge(event: Placed) -> None:
        raise RetryLater(3600)

    h = await one_order(worker)

    assert [letter.reason for letter in h.dead_letters] == ["expired"]
    assert len(h.runs) == 3


async def test_a_handler_that_hangs_has_its_time_out_without_waiting_for_it() -> None:
    worker = a_worker()

    @worker.handler(Placed, timeout=3600, retry=Retry(attempts=1))
    async def charge(event: Placed) -> None:
        await asyncio.Event().wait()

    h = await one_order(worker, patience=0.4)

    assert [letter.error_type for letter in h.dead_letters] == ["holdfast.consumer.errors.HandlerTimeout"]


async def test_how_long_a_handler_ran_is_counted_in_the_harness_s_time() -> None:
    worker = Worker("billing")

    @worker.handler(Placed, timeout=90, retry=Retry(attempts=1))
    async def charge(event: Placed) -> None:
        await asyncio.Event().wait()

    async with Harness(worker, patience=0.05) as h:
        await h.publish(Placed(order_id="o-1"))
        await h.settle()

        assert [settled.handler_seconds for settled in h.settled] == [90.0]


async def test_a_lease_is_over_when_the_clock_of_its_worker_says_so() -> None:
    clock, memory = VirtualClock(), MemoryClaims(ttl=60, clock=lambda: 0.0)
    lease = Lease(memory, seconds=15, emit=lambda fact: None)
    opened = OpenClaims(memory, lease, no_claims().findings)
    claims = WorkerClaims(opened, prefix="p", clock=clock, luck=lambda: 0.5, emit=lambda fact: None)
    claim = Claim("p:q:1", next(claims.tokens), bytes(8), lease.owner)

    await lease.start()
    in_time = await claims.claim(claim, alone=False, max_crashes=3)
    clock.advance_to(14)

    assert (in_time, lease.holds()) == (Acquired(), False)
    with pytest.raises(StoreUnavailable, match="heartbeat"):
        await claims.claim(claim, alone=False, max_crashes=3)
    await claims.close(0)


async def test_what_never_comes_to_an_end_is_said_to() -> None:
    worker = a_worker()

    @worker.handler(Placed)
    async def charge(event: Placed, ctx: Context) -> None:
        await ctx.publish(event, delay=86400)

    with pytest.raises(AssertionError, match=r"not settled within 2592000 s; still to come: .*shop\.charge"):
        await one_order(worker)


@pytest.mark.parametrize("is_reordered", [False, True])
async def test_handlers_that_publish_to_each_other_at_once_are_said_to(is_reordered: bool) -> None:
    worker = a_worker()

    @worker.handler(Placed)
    async def charge(event: Placed, ctx: Context) -> None:
        await ctx.publish(Paid(order_id=event.order_id))

    @worker.handler(Paid)
    async def place(event: Paid, ctx: Context) -> None:
        await ctx.publish(Placed(order_id=event.order_id))

    async with Harness(worker) as h:
        h._passage.most_at_once = 100
        if is_reordered:
            h.reorder(seed=1)
        await h.publish(Placed(order_id="o-1"))

        with pytest.raises(AssertionError, match=r"100 deliveries while no time passed, .* shop\.charge, shop\.place"):
            await h.settle()


async def test_foreign_and_broken_messages_are_dead_lettered() -> None:
    worker = a_worker()

    @worker.handler(Placed)
    async def charge(event: Placed) -> None: ...

    @worker.handler("harness.raw")
    async def take(event: bytes) -> None:
        raise Reject("not mine")

    async with Harness(worker) as h:
        await h.publish_raw("harness.placed", b"{}")
        await h.publish_raw("harness.raw", b"\xff", content_type=None, message_id=None)
        await h.settle()

    assert [(one.handler, one.reason, one.event) for one in h.dead_letters] == [
        ("charge", "unreadable", {}),
        ("take", "refused", None),
    ]


async def test_what_no_handler_takes_is_refused_to_the_test_and_routed_for_handlers() -> None:
    worker = a_worker()

    @worker.handler(Placed)
    async def charge(event: Placed, ctx: Context) -> None:
        await ctx.publish(Paid(order_id="o-1"))

    async with Harness(worker) as h:
        with pytest.raises(Unroutable, match=r"no handler of this harness takes 'harness\.shipped'"):
            await h.publish(Shipped(order_id="o-1"))
        await h.publish(Placed(order_id="o-1"))
        await h.settle()

    assert len(h.published) == 1


async def test_a_lost_event_fails_the_test() -> None:
    worker = a_worker()

    @worker.handler(Placed)
    async def charge(event: Placed) -> None:
        raise RetryLater(60)

    async def a_test_with_a_hole_in_its_broker() -> None:
        async with Harness(worker) as h:
            await h.publish(Placed(order_id="o-1"))
            await h.advance(0)
            broker = MemoryBroker(worker.settings.broker.url.get_secret_value())
            for level in range(10):
                broker.delete_queue(f"holdfast.delays.{level:02d}")
            await broker.close()

    with pytest.raises(AssertionError, match=r"1 published = 0 acked \+ 0 dead-lettered \+ 0 queued\nlost: event .*"):
        await a_test_with_a_hole_in_its_broker()


def from_the_failure() -> None:
    try:
        raise ConnectionError("the bank is closed")
    except ConnectionError as error:
        raise RetryLater(240) from error


def while_the_failure_is_handled() -> None:
    try:
        raise ConnectionError("the bank is closed")
    except ConnectionError:
        raise RetryLater(240)  # noqa: B904 (what is tried)


@pytest.mark.parametrize("wait", [from_the_failure, while_the_failure_is_handled])
async def test_a_retry_that_was_asked_for_shows_the_failure_behind_it(wait: Callable[[], None]) -> None:
    worker = a_worker()

    @worker.handler(Placed, retry=Retry(attempts=2))
    async def charge(event: Placed) -> None:
        wait()

    h = await one_order(worker)

    assert [(one.delay, one.error) for one in h.retries] == [(240, "ConnectionError: the bank is closed")]
    [dead] = h.dead_letters
    assert (dead.reason, dead.error_type, dead.error) == ("exhausted", "ConnectionError", "the bank is closed")
    assert f"in {wait.__name__}" in dead.letter.traceback
    assert {fact.error_type for fact in h.settled} == {"ConnectionError"}


async def test_a_retry_that_was_asked_for_without_a_failure_says_so() -> None:
    worker = a_worker()

    @worker.handler(Placed, retry=Retry(attempts=1))
    async def charge(event: Placed) -> None:
        raise RetryLater(240)

    [dead] = (await one_order(worker)).dead_letters

    assert dead.error == "the handler asked for another attempt in 240 s"


async def test_what_waits_counts_as_queued() -> None:
    worker = a_worker()

    @worker.handler(Placed)
    async def charge(event: Placed) -> None:
        raise RetryLater(60)

    async with Harness(worker) as h:
        await h.publish(Placed(order_id="o-1"))
        await h.publish(Placed(order_id="o-2"), delay=60)
        await h.advance(0)

    assert [(one.attempt, one.delay) for one in h.retries] == [(1, 60)]


async def test_a_test_that_fails_is_told_of_what_went_wrong_in_the_handlers() -> None:
    worker = a_worker()

    @worker.handler(Placed, retry=Retry(attempts=2))
    async def charge(event: Placed) -> None:
        raise TypeError("no such card")

    async def a_test_that_fails() -> None:
        async with Harness(worker) as h:
            await h.publish(Placed(order_id="o-1"))
            await h.settle()
            assert len(h.handled) == 1

    with pytest.raises(AssertionError) as failed:
        await a_test_that_fails()

    [note] = failed.value.__notes__
    assert "1 published = 0 acked + 1 dead-lettered + 0 queued" in note
    assert "charge, attempt 1, retried: TypeError: no such card" in note
    assert "charge: dead-lettered (exhausted): TypeError: no such card" in note


async def test_the_lifespan_and_its_publisher_live_on_the_harness() -> None:
    @asynccontextmanager
    async def lifespan(worker: Worker) -> AsyncIterator[Publisher]:
        async with Publisher(worker.settings, source="lifespan") as publisher:
            yield publisher

    worker = a_worker(lifespan=lifespan)

    @worker.handler(Placed)
    async def charge(event: Placed, ctx: Context) -> None:
        await ctx.state.publish(Paid(order_id=event.order_id))

    h = await one_order(worker)

    assert [(one.event, one.metadata.source) for one in h.published] == [(Paid(order_id="o-1"), "lifespan")]


async def test_a_worker_that_cannot_start_says_why() -> None:
    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        raise OSError("no database")
        yield

    worker = a_worker(lifespan=lifespan)
    worker.handler(Placed)(_fail)

    with pytest.raises(OSError, match="no database"):
        async with Harness(worker):
            pytest.fail("it began")


async def test_a_worker_can_be_used_by_one_harness_after_another_and_keeps_its_settings() -> None:
    worker = a_worker()
    before = worker.settings

    @worker.handler(Placed)
    async def charge(event: Placed) -> None: ...

    for _ in range(2):
        h = await one_order(worker)
        assert len(h.handled) == 1

    assert worker.settings is before


async def test_the_jitter_of_delays_is_the_same_for_the_same_seed() -> None:
    async def delays(seed: int) -> list[float]:
        worker = a_worker()
        worker.handler(Placed, retry=Retry(attempts=4))(_fail)
        h = await one_order(worker, seed=seed)
        return [one.delay for one in h.retries]

    assert await delays(1) == await delays(1) != await delays(2)


@pytest.fixture
def worker() -> Worker:
    return a_worker_that_fails()


async def test_the_fixture_runs_the_worker_of_the_fixture_worker(harness: Harness) -> None:
    await harness.publish(Placed(order_id="o-1"))
    await harness.settle()

    assert [letter.reason for letter in harness.dead_letters] == ["exhausted"]


async def test_mistakes_are_told_in_one_line() -> None:
    with pytest.raises(ConfigurationError, match=r"^Harness\('shop'\): give it one Worker or more$"):
        Harness("shop")  # type: ignore[arg-type]
    with pytest.raises(HoldfastError, match="use it inside `async with"):
        await Harness(a_worker_that_fails()).publish(Placed(order_id="o-1"))


def a_worker_that_fails() -> Worker:
    worker = a_worker()
    worker.handler(Placed, retry=Retry(attempts=1))(_fail)
    return worker


@pytest.mark.parametrize("seed", range(20))
async def test_everything_is_accounted_for_whatever_faults_come_together(seed: int) -> None:
    luck = random.Random(seed)
    shop, warehouse = a_worker("shop"), a_worker("warehouse")
    tries = Retry(attempts=4, backoff=exponential(60), immediate=luck.randrange(2))

    @shop.handler(Placed, retry=tries, concurrency=luck.choice((1, 3, None)), idempotent=luck.random() < 0.7)
    async def charge(event: Placed, ctx: Context) -> None:
        await asyncio.sleep(0)
        if luck.random() < 0.4:
            raise luck.choice((ConnectionError("down"), RetryLater(600), Reject("no")))
        await ctx.publish(Paid(order_id=event.order_id), delay=luck.choice((None, 60)))

    @warehouse.handler(Paid, retry=tries)
    def ship(event: Paid) -> None:
        if luck.random() < 0.3:
            raise ConnectionError("down")

    async with Harness(shop, warehouse, seed=seed, patience=2) as h:
        for fault in (h.duplicate_every_message, lambda: h.reorder(seed)):
            if luck.random() < 0.4:
                fault()
        for number in range(12):
            await h.publish(Placed(order_id=f"o-{number}"), delay=luck.choice((None, None, 300)))
            if luck.random() < 0.3:
                luck.choice((h.crash_before_ack, h.lose_connection))()
        if luck.random() < 0.8:
            await h.settle()


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
async def test_time_passes_by_a_number_of_seconds_or_not_at_all(seconds: float) -> None:
    worker = a_worker()

    @worker.handler(Placed)
    async def charge(event: Placed) -> None: ...

    async with Harness(worker) as h:
        before = h.now
        with pytest.raises(ConfigurationError, match="give seconds"):
            await h.advance(seconds)

        assert h.now == before


def test_the_page_names_each_argument_with_which_a_harness_publishes() -> None:
    page = (Path(__file__).parents[2] / "docs" / "testing.md").read_text()
    names = [name for name, one in signature(Harness.publish).parameters.items() if one.kind is one.KEYWORD_ONLY]

    [said] = re.findall(r"takes what `Publisher\.publish` takes: (.*?);", page, re.DOTALL)
    assert re.findall(r"`(\w+)=`", said) == names == list(signature(Publisher.publish).parameters)[2:]
