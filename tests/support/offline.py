"""A worker on a broker and claims in memory, in real time."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from builders import some_settings
from running import until_started
from waiting import Facts

from holdfast import Event, Publisher, Settings, Worker
from holdfast.consumer import Dependencies
from holdfast.events import uuid7
from holdfast.idempotency import Lease, MemoryClaims, OpenClaims, share


class Paid(Event, type="paid"):
    order: str


class OfflineWorker:
    """A worker on a broker and claims in memory, and what it said."""

    def __init__(self, settings: Settings, claims: MemoryClaims) -> None:
        self.facts = Facts()
        self.settings = settings
        self.claims = claims
        self.worker = Worker("w", settings=settings, listeners=[self.facts.record])
        self.began = asyncio.Event()

    @contextlib.asynccontextmanager
    async def running(self, dependencies: Dependencies = Dependencies()) -> AsyncIterator[None]:  # noqa: B008 (frozen)
        dependencies = replace(dependencies, open_claims=lambda settings, emit: self._open(emit))
        task = asyncio.create_task(self.worker.run(dependencies=dependencies))
        await until_started(self.worker, task)
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
        return self.facts.of(kind)

    def _open(self, emit: Any) -> OpenClaims:
        async def nothing() -> list[Any]:
            return []

        lease = Lease(self.claims, seconds=None, emit=emit)
        return OpenClaims(self.claims, lease, nothing, share(str(self.settings.claims_url), self.claims).board)


def an_offline_worker(claims: type[MemoryClaims] = MemoryClaims, *, grace: float = 0.1) -> OfflineWorker:
    url = f"memory://{uuid7()}"
    settings = some_settings(broker={"url": url}, idempotency={"url": url}, worker={"grace": grace}, http={"port": 0})
    return OfflineWorker(settings, claims(ttl=1000, clock=asyncio.get_running_loop().time))
