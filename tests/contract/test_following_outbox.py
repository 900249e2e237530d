"""Requests that a transaction begins, on each kind of database: the outbox writes them, and a relay begins them."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest
from builders import NOON
from databases import Bank, banks, openers
from following import WatchedBoard, until_listening
from offline import OfflineWorker, an_offline_worker
from waiting import Bell, eventually

from holdfast import Context, Event, Following, Metadata, Progress
from holdfast.broker import REAL
from holdfast.broker.memory import MemoryBroker
from holdfast.config import SqlSettings
from holdfast.events import Message, seal, uuid7
from holdfast.events import headers as h
from holdfast.idempotency import Entry, StoreUnavailable
from holdfast.outbox import Relay, free
from holdfast.sql import Outbox, Outgoing
from holdfast.telemetry import Spans, Unfollowed

SOME = [each for each in openers() if each.id in ("sqlite", "asyncpg-session")]
bank = banks(openers())


class Ordered(Event, type="ordered", key="order"):
    order: str


class Confirmed(Event, type="confirmed"):
    order: str


class Arrows(Bell):
    """The steps of a relay that outlive it. It stops before the step of the number `fatal`, and is dead then."""

    fatal: int | None = None
    passed = 0
    has_stopped = False

    async def at_an_arrow(self) -> None:
        if self.passed == self.fatal:
            self.has_stopped = True
            self.ring()
            await asyncio.Future()
        self.passed += 1


class HeldBoard(WatchedBoard):
    """A board at which relays may stop, and which may be unavailable to them."""

    is_unavailable = False

    def __init__(self, journal: list[str], arrows: Arrows) -> None:
        super().__init__(asyncio.get_running_loop().time, journal)
        self._arrows = arrows

    async def open(self, request: str, entries: Sequence[Entry], *, cause: str | None, life: float) -> None:
        if cause is None:
            await self._arrows.at_an_arrow()
            if self.is_unavailable:
                raise StoreUnavailable("unavailable")
        await super().open(request, entries, cause=cause, life=life)


class WatchedBroker(MemoryBroker):
    """The broker as relays have it, and what they sent."""

    def __init__(self, url: str, arrows: Arrows) -> None:
        super().__init__(url)
        self.sent: list[Message] = []
        self._arrows = arrows

    async def publish(self, message: Message, *, timeout: float | None) -> None:
        await self._arrows.at_an_arrow()
        await super().publish(message, timeout=timeout)
        self.sent.append(message)
        await self._arrows.at_an_arrow()


class Shop:
    """A worker that confirms orders, the outbox that they are written to, and a journal of effects and of `done`."""

    def __init__(self, bank: Bank, offline: OfflineWorker, schema: str) -> None:
        self.bank, self.offline = bank, offline
        self.settings = offline.settings.model_copy(update={"sql": SqlSettings(schema=schema, lease=30)})
        self.arrows, self.journal = Arrows(), list[str]()
        self.board = offline.claims.board = HeldBoard(self.journal, self.arrows)
        self.broker = WatchedBroker(self.settings.broker.url.get_secret_value(), self.arrows)
        self.following = Following(self.settings)

        @offline.worker.handler(Ordered)
        async def charge(event: Ordered, ctx: Context) -> None:
            self.journal.append(f"{ctx.queue} {ctx.event_id}")
            await ctx.publish(Confirmed(order=event.order))

        @offline.worker.handler(Confirmed)
        async def confirm(event: Confirmed, ctx: Context) -> None:
            self.journal.append(f"{ctx.queue} {ctx.event_id}")

    async def order(self, **options: Any) -> Metadata:
        """Commit an order that is followed."""
        outbox = Outbox(self.settings, source="shop")
        async with self.bank.transaction() as within:
            return await self.bank.publish(outbox, within, Ordered(order="o-1"), follow=True, **options)

    def relay(self) -> Relay:
        emit = self.offline.facts.record
        return Relay(
            self.bank.database, self.broker, self.settings, emit=emit, spans=Spans(), clock=REAL, luck=lambda: 0.0
        )

    async def relay_dies_before(self, step: int) -> None:
        """Send until just before a step: another relay goes on."""
        relay, arrows = self.relay(), self.arrows
        arrows.passed, arrows.fatal, arrows.has_stopped = 0, step, False
        draining = asyncio.create_task(relay.drain())
        await arrows.until_true(lambda: arrows.has_stopped)
        draining.cancel()
        await asyncio.wait({draining})
        arrows.fatal = None
        await free(self.bank.database, self.settings.sql, [relay.leases.token])

    async def progress(self, sent: Metadata) -> Progress:
        return await self.following.progress(sent.follow)

    async def until_done(self, sent: Metadata) -> None:
        """Wait until a request is done. The first `done` is later than its last effect."""
        await eventually(lambda: self.progress(sent), Progress("done", handled=2))
        effects = [line for line in self.journal if line != "done"]
        assert len(effects) == len(set(effects)) == 2
        assert set(self.journal[self.journal.index("done") :]) == {"done"}


@pytest.fixture
async def shop(bank: Bank, unique: str) -> AsyncIterator[Shop]:
    """The shop, at work."""
    offline = an_offline_worker()
    shop = Shop(bank, offline, unique)
    async with offline.running():
        await until_listening(shop.board, 2)
        yield shop
        await shop.broker.close()


async def test_a_request_of_a_transaction_begins_when_a_relay_sends_it(shop: Shop) -> None:
    sent = await shop.order()
    before = await shop.progress(sent)

    await shop.relay().drain()

    await shop.until_done(sent)
    assert before == Progress("unknown")


async def test_a_request_is_named_by_the_correlation_id_that_is_given(shop: Shop) -> None:
    given = Metadata(uuid7(), "ordered", NOON, correlation_id="request-1", caused_by="a queue of another request")
    sent = await shop.order(metadata=given)

    await shop.relay().drain()

    await shop.until_done(sent)
    assert (sent.follow, sent.correlation_id, sent.caused_by) == ("request-1", "request-1", None)


async def test_a_transaction_that_is_rolled_back_leaves_nothing_to_wait_for(shop: Shop) -> None:
    published: list[Metadata] = []
    outbox = Outbox(shop.settings, source="shop")

    async def fail() -> None:
        async with shop.bank.transaction() as within:
            published.append(await shop.bank.publish(outbox, within, Ordered(order="o-1"), follow=True))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    await shop.relay().drain()

    assert (await shop.progress(published[0]), shop.broker.sent) == (Progress("unknown"), [])


async def test_a_request_is_open_before_its_first_event_can_be_handled(shop: Shop) -> None:
    sent = await shop.order()

    await shop.relay_dies_before(1)

    assert (await shop.progress(sent), shop.broker.sent) == (Progress("open", open=1), [])
    await shop.relay().drain()
    await shop.until_done(sent)


@pytest.mark.parametrize("arrows", [(0,), (1,), (2,), *combinations((0, 1, 2), 2), (2, 2)], ids=str)
async def test_relays_that_die_at_any_step_say_done_no_earlier(shop: Shop, arrows: tuple[int, ...]) -> None:
    sent = await shop.order()
    for step in arrows:
        await shop.relay_dies_before(step)

    await shop.relay().drain()

    await shop.until_done(sent)
    assert len(shop.broker.sent) == arrows.count(2) + 1
    assert await shop.bank.count("events") == 0


async def test_an_event_that_is_sent_again_after_its_request_is_done_leaves_it_done(shop: Shop) -> None:
    sent = await shop.order()
    await shop.relay_dies_before(2)
    await shop.until_done(sent)

    await shop.relay().drain()
    await shop.offline.facts.settled("duplicate")

    await shop.until_done(sent)
    assert [message.headers[h.FOLLOW] for message in shop.broker.sent] == [sent.follow] * 2


@pytest.mark.parametrize("bank", SOME, indirect=True)
async def test_where_the_claim_store_is_unavailable_an_event_is_sent_all_the_same(shop: Shop) -> None:
    sent = await shop.order()
    shop.board.is_unavailable = True

    await shop.relay().drain()
    await shop.offline.facts.settled("handled", count=2)

    [fact] = shop.offline.of(Unfollowed)
    assert (fact.event_type, fact.event_id, fact.request) == ("ordered", sent.event_id, sent.follow)
    assert await shop.progress(sent) == Progress("unknown")


@pytest.mark.parametrize("bank", SOME, indirect=True)
async def test_an_event_that_is_sent_again_while_the_store_is_unavailable_is_followed(shop: Shop) -> None:
    sent = await shop.order()
    await shop.relay_dies_before(1)
    shop.board.is_unavailable = True

    await shop.relay().drain()

    await shop.until_done(sent)


@pytest.mark.parametrize("bank", SOME, indirect=True)
async def test_a_relay_begins_no_request_with_an_event_that_a_handler_wrote(shop: Shop) -> None:
    """Its request may be forgotten: one that begins in its middle would be done too early."""
    envelope = seal(Confirmed(order="o-1"), source="shop", caused_by="w.charge", event_id="e-2")
    row = Outgoing(replace(envelope, headers={h.FOLLOW: "forgotten"}))
    await shop.bank.database.run(shop.bank.statements.inserts([row]))

    await shop.relay().drain()
    await shop.offline.facts.settled("handled")

    assert [message.headers[h.FOLLOW] for message in shop.broker.sent] == ["forgotten"]
    assert await shop.board.read("forgotten") == []


@pytest.mark.parametrize("bank", SOME, indirect=True)
async def test_a_request_that_begins_later_says_when(shop: Shop) -> None:
    sent = await shop.order(delay=1000)

    await shop.relay().drain()

    progress = await shop.progress(sent)
    [later] = progress.later
    assert (progress.state, progress.open, later.type) == ("open", 1, "ordered")
    assert 0 < later.time.timestamp() - REAL.now().timestamp() <= 1000
