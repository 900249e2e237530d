"""A stop in each phase of a delivery: what is durable stays so, and nobody is taken for a crash."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from builders import some_settings
from running import until

from holdfast import Event, Publisher, Reject, Retry, Settings, Worker
from holdfast.broker.memory import shared
from holdfast.consumer.world import World
from holdfast.events import headers as h
from holdfast.events import seal, to_message, uuid7
from holdfast.idempotency import (
    Answer,
    Claim,
    Lease,
    MemoryClaims,
    OpenClaims,
    StoreUnavailable,
    claim_key,
    fingerprint_of,
)
from holdfast.telemetry import CrashSuspected, Fact, Paused, PipelineFailed, Settled


class Paid(Event, type="paid"):
    order: str


class Place:
    """A worker on a broker and claims in memory, and what it said."""

    def __init__(self, settings: Settings, claims: MemoryClaims) -> None:
        self.facts: list[Fact] = []
        self.settings = settings
        self.claims = claims
        self.worker = Worker("w", settings=settings, listeners=[self.facts.append])
        self.began = asyncio.Event()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        world = World(open_claims=lambda settings, emit: self._open(emit))
        task = asyncio.create_task(self.worker.run(world=world))
        await until(lambda: self.worker.health().ready or task.done(), "it happens")
        try:
            yield
        finally:
            self.worker.stop()
            await task

    async def publish(self, *orders: str) -> None:
        async with Publisher(self.settings) as publisher:
            for order in orders:
                await publisher.publish(Paid(order=order))

    def of(self, kind: type[Any]) -> list[Any]:
        return [fact for fact in self.facts if isinstance(fact, kind)]

    def _open(self, emit: Any) -> OpenClaims:
        async def nothing() -> list[Any]:
            return []

        return OpenClaims(self.claims, Lease(self.claims, seconds=None, emit=emit), nothing)


def a_place(claims: type[MemoryClaims] = MemoryClaims) -> Place:
    url = f"memory://{uuid7()}"
    settings = some_settings(broker={"url": url}, idempotency={"url": url}, worker={"grace": 0.1}, http={"port": 0})
    return Place(settings, claims(ttl=1000, clock=asyncio.get_running_loop().time))


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
