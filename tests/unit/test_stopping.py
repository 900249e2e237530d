"""A stop in each phase of a delivery: what is durable stays so, and nobody is taken for a crash."""

import asyncio
import contextlib
import gc
import itertools
import threading
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import anyio
from offline import OfflineWorker, Paid, an_offline_worker
from running import a_broker, take
from waiting import Facts

from holdfast import Publisher, Reject, Retry
from holdfast.broker.memory import shared
from holdfast.consumer import Dependencies
from holdfast.events import headers as h
from holdfast.events import seal, to_message
from holdfast.idempotency import (
    Answer,
    Claim,
    MemoryClaims,
    StoreUnavailable,
    claim_key,
    fingerprint_of,
)
from holdfast.telemetry import (
    CopyHeld,
    CrashSuspected,
    Draining,
    Paused,
    PipelineFailed,
    Settled,
    Started,
    Stopped,
    keep_running,
)


class SlowRelease(MemoryClaims):
    """One that forgets a claim after the stop, and not before."""

    async def release(self, claim: Claim, *, forget: bool = False) -> None:
        if forget:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.Event().wait(), 1)
        await super().release(claim, forget=forget)


async def test_what_was_dead_lettered_before_the_stop_is_not_given_back_as_well() -> None:
    offline = an_offline_worker(SlowRelease)

    @offline.worker.handler(Paid)
    async def handle(event: Paid) -> None:
        raise Reject("no")

    async with offline.running(), a_broker(offline.settings) as broker:
        await offline.publish("o-1")
        await take(broker, "w.handle.dead", 1)

    assert [fact.outcome for fact in offline.of(Settled)] == ["dead_lettered"]


async def test_a_stop_while_a_suspect_waits_to_be_alone_releases_every_claim() -> None:
    offline = an_offline_worker()
    began = asyncio.Event()

    @offline.worker.handler(Paid)
    async def handle(event: Paid) -> None:
        began.set()
        await asyncio.Event().wait()

    async with offline.running():
        await offline.publish("long")
        await began.wait()
        await _claimed(offline, "suspect", b"is dead-")
        await offline.facts.until(CrashSuspected)
    left = [record.state for record in offline.claims._records.values() if "probe" not in record.claim.key]

    assert not offline.of(PipelineFailed)
    assert [fact.outcome for fact in offline.of(Settled)] == ["given_back", "given_back"]
    assert left == ["resting"]


async def test_others_run_while_the_dead_letter_of_a_suspect_waits_for_its_confirm() -> None:
    offline = an_offline_worker()

    @offline.worker.handler(Paid)
    async def handle(event: Paid) -> None:
        if event.order == "suspect":
            raise Reject("no")

    async with offline.running():
        dead = shared(str(offline.settings.claims_url)).queues["w.handle.dead"]
        dead._max_length, dead._rejects = 0, True
        await _claimed(offline, "suspect", b"is dead-")
        await offline.facts.until(CopyHeld)
        await offline.publish("innocent")
        [first] = await offline.facts.settled()
        dead._max_length, dead._rejects = None, False
        await offline.facts.settled("dead_lettered")

    assert first.outcome == "handled"


async def test_a_stop_waits_no_longer_for_a_handler_that_is_abandoned_meanwhile() -> None:
    offline = an_offline_worker(grace=3600)
    began, go = asyncio.Event(), asyncio.Event()

    @offline.worker.handler(Paid, timeout=0.1, retry=Retry(attempts=1))
    async def handle(event: Paid) -> None:
        began.set()
        while not go.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await go.wait()

    async with offline.running(Dependencies(cancel_grace=0.1)):
        await offline.publish("o-1")
        await began.wait()
        offline.worker.stop()
        try:
            await offline.facts.until(Stopped)
        finally:
            go.set()

    assert [fact.outcome for fact in offline.of(Settled)] == ["dead_lettered"]


async def test_who_holds_an_event_has_the_time_of_each_of_its_runs_in_place() -> None:
    offline = an_offline_worker()
    ran: list[str] = []

    @offline.worker.handler(Paid, timeout=60, retry=Retry(attempts=1, immediate=4))
    async def handle(event: Paid) -> None:
        ran.append(event.order)

    offline.claims.beat(b"another-", 3600)
    async with offline.running():
        await _claimed(offline, "o-1", b"another-", {h.HELD_MS: 240_000})
        await offline.facts.until(Settled)

    assert [(fact.outcome, fact.claim) for fact in offline.of(Settled)] == [("postponed", "busy")]


async def _claimed(
    offline: OfflineWorker, order: str, owner: bytes, headers: Mapping[str, Any] = MappingProxyType({})
) -> None:
    """Publish an event that another worker has claimed."""
    envelope = replace(seal(Paid(order=order), source="shop"), headers=headers)
    key = claim_key(offline.settings.idempotency.prefix, "w.handle", "shop", envelope.metadata.event_id)
    fingerprint = fingerprint_of(to_message(envelope, exchange="events"), envelope.metadata, own_key=False)
    await offline.claims.claim(Claim(key, b"token--1", fingerprint, owner))
    async with Publisher(offline.settings, source="shop") as publisher:
        await publisher.publish(envelope)


class Full(MemoryClaims):
    """One that takes a probe and no more, as a Redis that is full to the brim."""

    async def claim(self, claim: Claim, *, alone: bool = False, max_crashes: int = 3) -> Answer:
        if ":probe:" not in claim.key:
            raise StoreUnavailable("out of memory")
        return await super().claim(claim, alone=alone, max_crashes=max_crashes)


async def test_a_store_that_comes_and_goes_is_asked_more_and_more_rarely() -> None:
    offline = an_offline_worker(Full)

    @offline.worker.handler(Paid)
    async def handle(event: Paid) -> None: ...

    async with offline.running():
        await offline.publish("o-1")
        await offline.facts.until(Paused)
        began = asyncio.get_running_loop().time()
        await offline.facts.until(Paused, count=6)

    assert asyncio.get_running_loop().time() - began > 1.3


async def test_another_worker_may_run_an_event_while_a_thread_outlives_the_grace() -> None:
    offline = an_offline_worker()
    other = OfflineWorker(offline.settings, offline.claims)
    began, go, ran = threading.Event(), threading.Event(), asyncio.Event()

    @offline.worker.handler(Paid)
    def handle(event: Paid) -> None:
        began.set()
        go.wait()

    @other.worker.handler(Paid, name="handle")
    async def handle_too(event: Paid) -> None:
        ran.set()

    async with a_broker(offline.settings):
        try:
            async with offline.running():
                await offline.publish("o-1")
                await asyncio.to_thread(began.wait)
            async with other.running():
                await ran.wait()
        finally:
            go.set()

    assert [fact.outcome for fact in (*offline.of(Settled), *other.of(Settled))] == ["given_back", "handled"]


async def test_what_a_thread_raises_after_the_stop_is_no_error_of_asyncio() -> None:
    offline = an_offline_worker()
    began, go, threads, said = threading.Event(), threading.Event(), list[threading.Thread](), list[dict[str, Any]]()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: said.append(context))

    @offline.worker.handler(Paid)
    def handle(event: Paid) -> None:
        threads.append(threading.current_thread())
        began.set()
        go.wait()
        raise OSError("too late")

    try:
        async with offline.running():
            await offline.publish("o-1")
            await asyncio.to_thread(began.wait)
    finally:
        go.set()
    await asyncio.to_thread(threads[0].join)
    heard = asyncio.Event()
    loop.call_soon(heard.set)  # after what the thread has told the loop
    await heard.wait()
    gc.collect()

    assert said == []


async def test_a_lasting_task_ends_where_a_driver_raises_in_place_of_a_cancellation() -> None:
    facts, began, runs = Facts(), asyncio.Event(), itertools.count(1)

    async def work() -> None:
        run = next(runs)
        began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as cancellation:
            raise OSError("interrupted") if run == 1 else cancellation from None

    lasting = asyncio.create_task(keep_running("relay", work, facts.record))
    await began.wait()
    lasting.cancel()
    await asyncio.wait({lasting}, timeout=10)

    assert lasting.cancelled()
    assert facts.all == []


async def test_a_worker_whose_scope_is_cancelled_again_and_again_drains_before_it_ends() -> None:
    offline = an_offline_worker()
    began = asyncio.Event()

    @offline.worker.handler(Paid)
    async def handle(event: Paid) -> None:
        began.set()
        await offline.facts.until(Draining)

    async with anyio.create_task_group() as tasks:  # it cancels what is in it with each turn of the loop
        tasks.start_soon(offline.worker.run)
        await offline.facts.until(Started)
        await offline.publish("o-1")
        await began.wait()
        tasks.cancel_scope.cancel()

    assert [fact.outcome for fact in offline.of(Settled)] == ["handled"]
    assert len(offline.of(Stopped)) == 1
