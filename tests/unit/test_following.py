"""Following where the claim store fails, or another worker takes an event over; and how progress is waited for."""

import asyncio
from collections.abc import Sequence

import pytest
from offline import OfflineWorker, Paid, an_offline_worker
from waiting import eventually

from holdfast import Context, Event, Following, Progress, Publisher, Retry, fixed
from holdfast.broker import ladder
from holdfast.broker.memory import shared
from holdfast.idempotency import Board, Claim, Completion, Entry, Mark, MemoryBoard, MemoryClaims, StoreUnavailable
from holdfast.telemetry import Unfollowed


class Mailed(Event, type="mailed"):
    order: str


class Fencing(MemoryClaims):
    """Another worker took every event over."""

    async def complete(self, claim: Claim, mark: Mark | None = None) -> Completion:
        return "fenced"


class Unanswering(MemoryClaims):
    """A store that does not answer the first completion."""

    misses = 1

    async def complete(self, claim: Claim, mark: Mark | None = None) -> Completion:
        if self.misses:
            self.misses -= 1
            raise StoreUnavailable("unavailable")
        return await super().complete(claim, mark)


class Failing(MemoryBoard):
    """A board that is unavailable while `fails` names the step. Its marks are apart from claims, as in a cluster."""

    is_beside_claims = False
    fails = ""

    async def open(self, request: str, entries: Sequence[Entry], *, cause: str | None, life: float) -> None:
        if cause is not None and self.fails == "open":
            raise StoreUnavailable("unavailable")
        await super().open(request, entries, cause=cause, life=life)

    async def mark(self, request: str, entry: Entry, *, life: float) -> None:
        if self.fails == "mark":
            raise StoreUnavailable("unavailable")
        await super().mark(request, entry, life=life)


def a_failing_board(offline: OfflineWorker) -> Failing:
    board = offline.claims.board = Failing(asyncio.get_running_loop().time)
    return board


async def publish(offline: OfflineWorker) -> str:
    async with Publisher(offline.settings) as publisher:
        return str((await publisher.publish(Paid(order="o-1"), follow=True)).follow)


async def progress_of(offline: OfflineWorker, request: str) -> Progress:
    return await Following(offline.settings).progress(request)


def with_a_mail(offline: OfflineWorker) -> None:
    @offline.worker.handler(Paid)
    async def handle(event: Paid, ctx: Context) -> None:
        await ctx.publish(Mailed(order=event.order))

    @offline.worker.handler(Mailed)
    async def mail(event: Mailed) -> None: ...


@pytest.mark.parametrize("is_apart", [False, True])
async def test_an_event_that_another_worker_took_over_stays_open_for_that_one(is_apart: bool) -> None:
    offline = an_offline_worker(Fencing)
    if is_apart:
        a_failing_board(offline)

    @offline.worker.handler(Paid)
    async def handle(event: Paid) -> None: ...

    async with offline.running():
        request = await publish(offline)
        await offline.facts.settled(count=1)

        assert (await progress_of(offline, request)).state == "open"


async def test_a_request_is_unknown_once_what_an_event_published_is_on_no_board() -> None:
    offline = an_offline_worker()
    board = a_failing_board(offline)
    with_a_mail(offline)

    async with offline.running():
        board.fails = "open"
        request = await publish(offline)
        await offline.facts.settled(count=2)
        board.fails = ""

        await eventually(lambda: progress_of(offline, request), Progress("unknown", handled=1))
        [fact] = offline.of(Unfollowed)
        assert (fact.event_type, fact.event_id, fact.request) == ("paid", request, request)


async def test_what_is_a_duplicate_is_handled_only_where_what_it_published_is_open() -> None:
    offline = an_offline_worker()
    board = a_failing_board(offline)

    @offline.worker.handler(Paid)
    async def handle(event: Paid) -> None: ...

    async with offline.running(), Publisher(offline.settings) as publisher:
        unfollowed = await publisher.publish(Paid(order="o-1"))
        await offline.facts.settled(count=1)
        again = await publisher.publish(Paid(order="o-1"), metadata=unfollowed, follow=True)
        await offline.facts.settled(count=2)

        assert (await progress_of(offline, str(again.follow))).state == "unknown"
        assert board.fails == ""


async def test_a_board_that_is_made_anew_while_an_event_is_handled_is_not_done() -> None:
    """Redis was flushed, and a relay sent the first event again: what the handler published is on the old board."""
    offline = an_offline_worker()

    class Flushed(MemoryBoard):
        async def mark(self, request: str, entry: Entry, *, life: float) -> None:
            if entry.event_type == "paid":
                self._boards.clear()
                await self.open(request, [Entry(entry.queue, entry.event_id, "paid")], cause=None, life=life)
            await super().mark(request, entry, life=life)

    offline.claims.board = Flushed(asyncio.get_running_loop().time)
    with_a_mail(offline)

    async with offline.running():
        request = await publish(offline)
        await offline.facts.settled(count=2)

        assert (await progress_of(offline, request)).state == "unknown"


async def test_a_retry_is_noted_before_its_copy_is_published() -> None:
    """Its next attempt may run at once, and end before a note that came later."""
    offline, waiting = an_offline_worker(), list[int]()

    class Noting(MemoryBoard):
        async def mark(self, request: str, entry: Entry, *, life: float) -> None:
            if entry.state == "retrying":
                queues = shared(offline.settings.broker.url.get_secret_value()).queues
                waiting.append(
                    sum(len(queue.ready) for name, queue in queues.items() if name.startswith(ladder.LEVELS))
                )
            await super().mark(request, entry, life=life)

    offline.claims.board = Noting(asyncio.get_running_loop().time)

    @offline.worker.handler(Paid, retry=Retry(attempts=2, backoff=fixed(60)))
    async def handle(event: Paid) -> None:
        raise OSError("not yet")

    async with offline.running():
        await publish(offline)
        await offline.facts.settled("postponed")

    assert waiting == [0]


async def test_steps_that_a_store_has_missed_are_written_when_the_worker_ends() -> None:
    offline = an_offline_worker()
    board = a_failing_board(offline)
    with_a_mail(offline)

    async with offline.running():
        board.fails = "mark"
        request = await publish(offline)
        await offline.facts.settled(count=2)
        before = await progress_of(offline, request)
        board.fails = ""

    assert before == Progress("open", open=2)
    assert await progress_of(offline, request) == Progress("done", handled=2)


async def test_an_event_whose_completion_is_recorded_later_is_handled_then() -> None:
    offline = an_offline_worker(Unanswering)

    @offline.worker.handler(Paid)
    async def handle(event: Paid) -> None: ...

    async with offline.running():
        request = await publish(offline)
        await offline.facts.settled(count=1)

    assert await progress_of(offline, request) == Progress("done", handled=1)


async def test_a_wait_ends_with_the_request_or_with_its_time() -> None:
    offline, may_go = an_offline_worker(), asyncio.Event()

    @offline.worker.handler(Paid)
    async def handle(event: Paid) -> None:
        await may_go.wait()

    async with offline.running(), Following(offline.settings) as following:
        request = await publish(offline)
        too_soon = await following.until_done(request, within=0.01)
        waiting = asyncio.create_task(following.until_done(request, within=60))
        may_go.set()

        assert (too_soon.state, (await waiting).state) == ("open", "done")


async def test_a_request_is_watched_from_change_to_change() -> None:
    offline = an_offline_worker()
    with_a_mail(offline)

    async with offline.running(), Following(offline.settings) as following:
        request = await publish(offline)
        states = [progress async for progress in following.watch(request)]

    assert states[-1] == Progress("done", handled=2)
    assert len(set(states)) == len(states)


async def test_a_queue_that_is_gone_is_waited_for_no_more() -> None:
    offline = an_offline_worker()
    with_a_mail(offline)
    queue = next(spec.queue for spec in offline.worker.handlers if spec.name == "mail")

    async with offline.running(), Following(offline.settings) as following:
        await following.forget(queue)
        request = await publish(offline)
        await offline.facts.settled(count=2)

        assert await following.progress(request) == Progress("done", handled=2)


async def test_an_outage_of_the_store_is_unknown_progress() -> None:
    offline = an_offline_worker()

    class Unavailable(MemoryBoard):
        async def read(self, request: str) -> list[Entry]:
            raise StoreUnavailable("unavailable")

    board: Board = Unavailable(lambda: 0.0)
    following = Following(offline.settings)
    following._board = board

    assert await following.progress("r") == Progress("unknown")
