"""A stop in each phase of a delivery: what is durable stays so, and nobody is taken for a crash."""

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from places import Paid, Place, a_place
from running import until

from holdfast import Publisher, Reject, Retry
from holdfast.broker.memory import shared
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
from holdfast.telemetry import CrashSuspected, Paused, PipelineFailed, Settled


class SlowRelease(MemoryClaims):
    """One that forgets a claim after the stop, and not before."""

    async def release(self, claim: Claim, *, forget: bool = False) -> None:
        if forget:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.Event().wait(), 1)
        await super().release(claim, forget=forget)


async def test_what_was_dead_lettered_before_the_stop_is_not_given_back_as_well() -> None:
    place = a_place(SlowRelease)

    @place.worker.handler(Paid)
    async def handle(event: Paid) -> None:
        raise Reject("no")

    server = shared(place.settings.broker.url.get_secret_value())
    async with place.running():
        await place.publish("o-1")
        await until(lambda: len(server.queues["w.handle.dead"].ready) == 1, "it happens")

    assert [fact.outcome for fact in place.of(Settled)] == ["dead_lettered"]


async def test_a_stop_while_a_suspect_waits_to_be_alone_releases_every_claim() -> None:
    place = a_place()
    began = asyncio.Event()

    @place.worker.handler(Paid)
    async def handle(event: Paid) -> None:
        began.set()
        await asyncio.Event().wait()

    async with place.running():
        await place.publish("long")
        await began.wait()
        await _claimed(place, "suspect", b"is dead-")
        await until(lambda: place.of(CrashSuspected), "it happens")
    left = [record.state for record in place.claims._records.values() if "probe" not in record.claim.key]

    assert not place.of(PipelineFailed)
    assert [fact.outcome for fact in place.of(Settled)] == ["given_back", "given_back"]
    assert left == ["resting"]


async def test_who_holds_an_event_has_the_time_of_each_of_its_runs_in_place() -> None:
    place = a_place()
    ran: list[str] = []

    @place.worker.handler(Paid, timeout=60, retry=Retry(attempts=1, immediate=4))
    async def handle(event: Paid) -> None:
        ran.append(event.order)

    place.claims.beat(b"another-", 3600)
    async with place.running():
        await _claimed(place, "o-1", b"another-", {h.HELD_MS: 240_000})
        await until(lambda: place.of(Settled), "it happens")

    assert [(fact.outcome, fact.claim) for fact in place.of(Settled)] == [("postponed", "busy")]


async def _claimed(place: Place, order: str, owner: bytes, headers: Mapping[str, Any] = MappingProxyType({})) -> None:
    """Publish an event that another worker has claimed."""
    envelope = replace(seal(Paid(order=order), source="shop"), headers=headers)
    key = claim_key(place.settings.idempotency.prefix, "w.handle", "shop", envelope.metadata.event_id)
    fingerprint = fingerprint_of(to_message(envelope, exchange="events"), envelope.metadata, own_key=False)
    await place.claims.claim(Claim(key, b"token--1", fingerprint, owner))
    async with Publisher(place.settings, source="shop") as publisher:
        await publisher.publish(envelope)


class Full(MemoryClaims):
    """One that takes a probe and no more, as a Redis that is full to the brim."""

    async def claim(self, claim: Claim, *, alone: bool = False, max_crashes: int = 3) -> Answer:
        if ":probe:" not in claim.key:
            raise StoreUnavailable("out of memory")
        return await super().claim(claim, alone=alone, max_crashes=max_crashes)


async def test_a_store_that_comes_and_goes_is_asked_more_and_more_rarely() -> None:
    place = a_place(Full)

    @place.worker.handler(Paid)
    async def handle(event: Paid) -> None: ...

    async with place.running():
        await place.publish("o-1")
        await until(lambda: place.of(Paused), "it happens")
        began = asyncio.get_running_loop().time()
        await until(lambda: len(place.of(Paused)) > 5, "it happens")

    assert asyncio.get_running_loop().time() - began > 1.3
