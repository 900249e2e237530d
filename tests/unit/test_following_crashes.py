"""Workers in a harness that die before any step, while others are told of the progress of a request all the time."""

import random
import sqlite3
from collections.abc import Iterator
from itertools import count

import pytest
from following import WatchedBoard

from holdfast import Context, Event, Reject, Retry, RetryLater, Worker, fixed
from holdfast.sql import Database, ddl
from holdfast.testing import Harness


class Begun(Event, type="step.begun"):
    depth: int
    number: int


class Reported(Event, type="step.reported"):
    number: int


class Services:
    """Three services that hand on a request, and a journal of their effects and of what was said of the request."""

    def __init__(self, seed: int = 0, *, fails: float = 0.0, dies: float = 0.0) -> None:
        self.journal: list[str] = []
        self._luck, self._fails, self._dies = random.Random(seed), fails, dies
        self.is_mended = False
        self.workers = (self._shop(), self._books(), self._mail())

    def harness(self, seed: int = 0) -> Harness:
        h = Harness(*self.workers, seed=seed)
        h._stage.claims.board = WatchedBoard(lambda: 0.0, self.journal)
        return h

    def _shop(self) -> Worker:
        worker = Worker("shop")

        @worker.handler(Begun, retry=Retry(attempts=2, backoff=fixed(5)))
        async def begin(event: Begun, ctx: Context) -> None:
            self._happen(ctx)
            if event.depth:
                for number in range(event.number % 3):
                    await ctx.publish(Begun(depth=event.depth - 1, number=number), delay=number or None)
            await ctx.publish(Reported(number=event.number))

        return worker

    def _books(self) -> Worker:
        worker = Worker("books")

        @worker.handler("step.*", retry=Retry(attempts=2, backoff=fixed(5)))
        async def book(event: dict[str, int], ctx: Context) -> None:
            self._happen(ctx)

        return worker

    def _mail(self) -> Worker:
        worker = Worker("mail")

        @worker.handler(Reported, retry=Retry(attempts=2, backoff=fixed(5)))
        async def report(event: Reported, ctx: Context) -> None:
            self._happen(ctx)

        return worker

    def _happen(self, ctx: Context) -> None:
        if not self.is_mended and self._luck.random() < self._dies:
            raise Reject("not this one")
        if not self.is_mended and self._luck.random() < self._fails:
            raise RetryLater(after=1)
        self.journal.append(f"{ctx.queue} {ctx.event_id}")

    def check(self) -> None:
        """The first `done` is later than the last effect."""
        assert "done" in self.journal
        assert set(self.journal[self.journal.index("done") :]) == {"done"}


def at(*steps: int) -> Iterator[bool]:
    return (number in steps for number in count())


STEPS = 30


@pytest.mark.parametrize("first", range(STEPS))
async def test_a_worker_that_dies_before_any_step_says_done_no_earlier(first: int) -> None:
    for second in (None, *range(first + 1, STEPS, 29)):
        services = Services()
        async with services.harness() as h:
            h._faults.arrows = at(first) if second is None else at(first, second)
            sent = await h.publish(Begun(depth=1, number=1), follow=True)
            await h.settle()

            assert (await h.progress(sent.correlation_id)).done
        services.check()


async def test_a_worker_that_dies_says_done_also_where_a_mark_is_apart_from_its_completion() -> None:
    """As in a cluster: what was completed and not marked is known to have published nothing."""
    for first in range(STEPS):
        services = Services()
        harness = services.harness()
        harness._stage.claims.board.is_beside_claims = False
        async with harness as h:
            h._faults.arrows = at(first)
            sent = await h.publish(Begun(depth=1, number=1), follow=True)
            await h.settle()

            assert (await h.progress(sent.correlation_id)).state == "done", first
        services.check()


@pytest.mark.parametrize("times", [1, 2])
async def test_a_worker_that_dies_after_a_commit_that_published_nothing_says_done(times: int) -> None:
    """Its inbox alone knows that the event is handled."""
    database, worker = Database.sqlite(":memory:"), Worker("ledger")
    await database.run((statement, {}) for statement in ddl(dialect="sqlite"))

    @worker.handler(Reported, within=database)
    def report(event: Reported, ctx: Context, connection: sqlite3.Connection) -> None: ...

    async with Harness(worker) as h:
        h.crash_before_ack(times)
        sent = await h.publish(Reported(number=1), follow=True)
        await h.settle()

        assert (await h.progress(sent.correlation_id)).done


@pytest.mark.parametrize("seed", range(8))
async def test_whatever_happens_done_is_said_after_the_last_effect(seed: int) -> None:
    """Crashes, lost connections, duplicates, retries, dead letters that are replayed, and delayed events."""
    luck, services = random.Random(seed), Services(seed, fails=0.2, dies=0.1)
    async with services.harness(seed) as h:
        if luck.random() < 0.5:
            h.duplicate_every_message()
        if luck.random() < 0.3:
            h.reorder(seed)
        h.lose_connection(luck.randrange(4))
        h._faults.arrows = iter([luck.random() < 0.03 for _ in range(300)])
        sent = await h.publish(Begun(depth=2, number=luck.randrange(3)), follow=True)
        await h.settle()
        services.is_mended = True
        while h.dead_letters:
            assert (await h.progress(sent.correlation_id)).state in ("failed", "done")  # another copy was handled
            await h.replay(h.dead_letters[0])
            await h.settle()

        assert (await h.progress(sent.correlation_id)).done
    services.check()
