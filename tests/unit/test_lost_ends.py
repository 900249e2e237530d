"""A claim store that lost how a claim ended, as a Redis does whose replica takes over a moment too early."""

import asyncio

from offline import OfflineWorker, Paid, an_offline_worker
from running import publish_all

from holdfast import Context, Retry, fixed
from holdfast.events import seal
from holdfast.idempotency import Claim, Completion, Mark, MemoryClaims
from holdfast.telemetry import Settled


class Losing(MemoryClaims):
    """One that loses the first end of each claim."""

    lost: set[bytes]

    async def complete(self, claim: Claim, mark: Mark | None = None) -> Completion:
        return await super().complete(claim, mark) if self._keeps(claim) else "recorded"

    async def release(self, claim: Claim, *, forget: bool = False) -> None:
        if self._keeps(claim):
            await super().release(claim, forget=forget)

    def _keeps(self, claim: Claim) -> bool:
        self.lost = getattr(self, "lost", set())
        keeps = claim.token in self.lost
        self.lost.add(claim.token)
        return keeps or ":probe:" in claim.key


async def settled(offline: OfflineWorker, count: int) -> list[tuple[str, int]]:
    await offline.facts.settled(count=count)
    return [(fact.outcome, fact.attempt) for fact in offline.of(Settled)]


async def test_a_retry_whose_claim_failed_to_be_released_runs_at_once_on_that_worker() -> None:
    offline = an_offline_worker(Losing)

    @offline.worker.handler(Paid, retry=Retry(attempts=2, backoff=fixed(0.1)))
    async def handle(event: Paid, ctx: Context) -> None:
        if ctx.attempt == 1:
            raise OSError("not yet")

    async with offline.running():
        await offline.publish("o-1")

        assert await settled(offline, 2) == [("postponed", 1), ("handled", 2)]


async def test_an_event_whose_completion_was_lost_is_a_duplicate_to_its_own_worker() -> None:
    offline, envelope = an_offline_worker(Losing), seal(Paid(order="o-1"), source="shop")

    @offline.worker.handler(Paid)
    async def handle(event: Paid) -> None:
        await asyncio.sleep(0)

    async with offline.running():
        for count in (1, 2):
            await publish_all(offline.settings, [envelope])
            told = await settled(offline, count)

    assert told == [("handled", 1), ("duplicate", 1)]
