"""How a worker holds what it has taken: slots, threads, middleware, state, and what a stop gives back."""

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from breaking import with_worker
from running import a_broker, a_worker, depth, publish_all, running, take, until_ready
from waiting import LIMIT, Arrivals, Bell, Facts, Tally

from holdfast import Context, Event, Handler, Retry, Settings, Worker, fixed
from holdfast.consumer import Dependencies
from holdfast.events import headers as h
from holdfast.telemetry import HandlerAbandoned, Settled


class Paid(Event, type="paid"):
    order: str


SOON = fixed(0.1, jitter=False)


class Running:
    """How many run now, for each handler, and how many ran at once at most."""

    def __init__(self) -> None:
        self.now: Tally[str] = Tally()
        self.most: Counter[str] = Counter()
        self.go = asyncio.Event()

    async def run(self, handler: str) -> None:
        self.now[handler] += 1
        self.most[handler] = max(self.most[handler], self.now[handler])
        self.most["all"] = max(self.most["all"], self.now.total())
        await self.go.wait()
        await asyncio.sleep(0)
        self.now[handler] -= 1


# Slots


async def test_a_worker_runs_no_more_at_once_than_it_may_nor_does_a_handler(settings: Settings) -> None:
    facts, counts = Facts(), Running()
    worker = a_worker(with_worker(settings, concurrency=5), facts)

    @worker.handler(Paid, concurrency=2)
    async def narrow(event: Paid) -> None:
        await counts.run("narrow")

    @worker.handler(Paid)
    async def wide(event: Paid) -> None:
        await counts.run("wide")

    async with running(worker):
        await publish_all(settings, [Paid(order=f"o-{n}") for n in range(40)])
        await counts.now.until(lambda: counts.now.total() == 5)
        counts.go.set()
        await facts.settled("handled", count=80)

    assert counts.most["all"] == 5
    assert counts.most["narrow"] <= 2
    assert counts.most["wide"] >= 3


async def test_threads_are_bounded_as_well(settings: Settings) -> None:
    facts, go, most, now, lock = Facts(), threading.Event(), 0, 0, threading.Lock()
    began, loop = Bell(), asyncio.get_running_loop()
    worker = a_worker(with_worker(settings, concurrency=3), facts)

    @worker.handler(Paid)
    def handle(event: Paid) -> None:
        nonlocal most, now
        with lock:
            now += 1
            most = max(most, now)
        loop.call_soon_threadsafe(began.ring)
        go.wait(LIMIT)
        with lock:
            now -= 1

    async with running(worker):
        await publish_all(settings, [Paid(order=f"o-{n}") for n in range(12)])
        await began.until_true(lambda: now == 3, lambda: now)
        go.set()
        await facts.settled("handled", count=12)

    assert most == 3


async def test_a_def_handler_that_blocks_does_not_stop_the_others(settings: Settings) -> None:
    facts, go, seen = Facts(), threading.Event(), []
    worker = a_worker(settings, facts)

    @worker.handler(Paid, name="blocks")
    def blocks(event: Paid) -> None:
        go.wait(LIMIT)

    @worker.handler(Paid, name="goes_on")
    async def goes_on(event: Paid) -> None:
        seen.append(event.order)

    orders = [f"o-{n}" for n in range(30)]
    async with running(worker):
        await publish_all(settings, [Paid(order=order) for order in orders])
        settled = await facts.settled("handled", count=30)
        go.set()
        await facts.settled("handled", count=60)

    assert {fact.handler for fact in settled} == {"goes_on"}
    assert sorted(seen) == sorted(orders), facts.all


@pytest.mark.parametrize("attempts", [1, 2], ids=["dead-lettered", "postponed"])
@pytest.mark.parametrize("kind", ["async", "def"])
async def test_a_handler_that_does_not_end_is_abandoned_and_keeps_its_slot_meanwhile(
    settings: Settings, kind: str, attempts: int
) -> None:
    facts, go, go_thread, began = Facts(), asyncio.Event(), threading.Event(), Arrivals[str]()
    loop = asyncio.get_running_loop()
    worker = a_worker(with_worker(settings, concurrency=1), facts)
    policy = Retry(attempts=attempts, backoff=SOON)

    async def stubborn(event: Paid, ctx: Context) -> None:
        began(event.order)
        while event.order == "o-1" and ctx.attempt == 1 and not go.is_set():
            with suppress(asyncio.CancelledError):
                await go.wait()

    def blocking(event: Paid, ctx: Context) -> None:
        loop.call_soon_threadsafe(began, event.order)
        if event.order == "o-1" and ctx.attempt == 1:
            go_thread.wait(LIMIT)

    worker.handler(Paid, name="handle", timeout=0.5, retry=policy)(stubborn if kind == "async" else blocking)

    async with running(worker, dependencies=Dependencies(cancel_grace=0.1)):
        await publish_all(settings, [Paid(order="o-1")])
        assert await began.next() == "o-1"
        await publish_all(settings, [Paid(order="o-2")])
        [abandoned] = await facts.until(HandlerAbandoned)
        [first] = await facts.settled()
        began_meanwhile = list(began.all)
        go.set()
        go_thread.set()
        await facts.settled("handled", count=attempts)

    outcome = "postponed" if attempts > 1 else "dead_lettered"
    assert (first.outcome, first.error_type, began_meanwhile) == (outcome, "HandlerTimeout", ["o-1"])
    assert (abandoned.event_id, abandoned.timeout) == (first.metadata.event_id, 0.5)
    assert sorted(began.all) == ["o-1"] * attempts + ["o-2"]
    assert await depth(settings, f"{worker.name}.handle.dead") == (1 if attempts == 1 else 0)


# Stopping


async def test_what_a_stop_gives_back_has_spent_no_attempt(settings: Settings) -> None:
    facts, began = Facts(), asyncio.Event()
    hasty = a_worker(with_worker(settings, concurrency=1, grace=0), facts)

    @hasty.handler(Paid, retry=Retry(attempts=1))
    async def handle(event: Paid) -> None:
        began.set()
        await asyncio.Event().wait()

    async with running(hasty):
        await publish_all(settings, [Paid(order="runs"), Paid(order="waits")])
        await began.wait()

    seen: dict[str, tuple[int, bool]] = {}
    patient = a_worker(settings, facts)

    @patient.handler(Paid, retry=Retry(attempts=1), name="handle")
    async def handle_again(event: Paid, ctx: Context) -> None:
        seen[event.order] = (ctx.attempt, ctx.redelivered)

    async with running(patient):
        await facts.settled("handled", count=2)

    assert seen == {"runs": (1, True), "waits": (1, True)}
    assert [fact.outcome for fact in facts.of(Settled)] == ["given_back", "handled", "handled"]


async def test_run_tells_how_many_handlers_were_left_unfinished(settings: Settings) -> None:
    facts, began = Facts(), Arrivals[str]()
    worker = a_worker(with_worker(settings, grace=0), facts)

    @worker.handler(Paid)
    async def handle(event: Paid) -> None:
        began(event.order)
        await asyncio.Event().wait()

    run = asyncio.create_task(worker.run())
    await until_ready(worker)
    await publish_all(settings, [Paid(order="o-1"), Paid(order="o-2")])
    await began.take(2)
    worker.stop()

    assert await run == 2
    assert await depth(settings, f"{worker.name}.handle") == 2


async def test_the_state_of_the_lifespan_reaches_handlers_and_is_closed_after_the_last(
    settings: Settings,
) -> None:
    facts, told, began, go = Facts(), list[str](), asyncio.Event(), asyncio.Event()

    @asynccontextmanager
    async def lifespan(worker: Worker) -> AsyncIterator[dict[str, bool]]:
        state = {"open": True}
        told.append(f"opened for {worker.name}")
        yield state
        state["open"] = False
        told.append("closed")

    worker = a_worker(settings, facts, lifespan=lifespan)

    @worker.handler(Paid)
    async def handle(event: Paid, ctx: Context) -> None:
        began.set()
        await go.wait()
        told.append(f"handled while open: {ctx.state['open']}")

    async with running(worker):
        await publish_all(settings, [Paid(order="o-1")])
        await began.wait()
        worker.stop()
        go.set()

    assert told == [f"opened for {worker.name}", "handled while open: True", "closed"]


# Middleware


async def test_middleware_wraps_every_handler_the_first_outermost(settings: Settings) -> None:
    facts, told = Facts(), list[str]()

    def telling(name: str) -> Any:
        def wrap(handler: Handler) -> Handler:
            async def call(event: Any, ctx: Context) -> None:
                told.append(f"{name} before {event.order}")
                await handler(event, ctx)
                told.append(f"{name} after {event.order}")

            return call

        return wrap

    worker = a_worker(settings, facts, middleware=[telling("outer"), telling("inner")])

    @worker.handler(Paid)
    def handle(event: Paid) -> None:
        told.append(f"handler {event.order}")

    async with running(worker):
        await publish_all(settings, [Paid(order="o-1")])
        await facts.settled("handled")

    assert told == ["outer before o-1", "inner before o-1", "handler o-1", "inner after o-1", "outer after o-1"]


async def test_middleware_cannot_ack_its_result_means_nothing_its_error_keeps_the_event(
    settings: Settings,
) -> None:
    facts, runs = Facts(), Counter[str]()

    def fails_afterwards(handler: Handler) -> Handler:
        async def call(event: Any, ctx: Context) -> Any:
            await handler(event, ctx)
            if event.order == "fails" and ctx.attempt == 1:
                raise OSError("the commit failed")
            return {"ack": True}

        return call

    worker = a_worker(settings, facts, middleware=[fails_afterwards])

    @worker.handler(Paid, retry=Retry(attempts=2, backoff=SOON))
    async def handle(event: Paid) -> bool:
        runs[event.order] += 1
        return False

    async with running(worker):
        await publish_all(settings, [Paid(order="fails"), Paid(order="works")])
        await facts.settled("handled", count=2)

    assert runs == {"fails": 2, "works": 1}
    assert [fact.error for fact in facts.of(Settled) if fact.outcome == "postponed"] == ["OSError: the commit failed"]


async def test_an_event_whose_middleware_has_not_returned_is_not_acked(settings: Settings) -> None:
    facts, handled = Facts(), asyncio.Event()

    def lingers(handler: Handler) -> Handler:
        async def call(event: Any, ctx: Context) -> None:
            await handler(event, ctx)
            handled.set()
            await asyncio.Event().wait()

        return call

    worker = a_worker(with_worker(settings, grace=0), facts, middleware=[lingers])

    @worker.handler(Paid)
    async def handle(event: Paid) -> None: ...

    async with running(worker):
        await publish_all(settings, [Paid(order="o-1")])
        await handled.wait()

    async with a_broker(settings) as broker:
        [message] = await take(broker, f"{worker.name}.handle", 1)
    assert [fact.outcome for fact in facts.of(Settled)] == ["given_back"]
    assert h.ATTEMPT not in message.headers
