"""Users with the rights of docs/permissions.md, word for word, do all of their work, and no right is there in vain."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from apps import copy_app
from commands import environment, holdfast
from keeping import KeptFile
from morgue import QUICK, a_desk
from rabbits import Rabbit
from redises import with_users
from rights import VirtualHost, a_virtual_host, readable_by_ordered
from running import a_broker, running
from waiting import Facts, eventually

from holdfast import (
    BrokerUnavailable,
    Context,
    Event,
    Ordered,
    Publisher,
    PublishRefused,
    Retry,
    Settings,
    TopologyError,
    Worker,
    fixed,
    load_settings,
)
from holdfast.broker import REAL, Broker, events_topology
from holdfast.broker.amqp import apply_topology
from holdfast.consumer import topology_of
from holdfast.dead_letters import Pace, Selection
from holdfast.journal import Recorder
from holdfast.telemetry import CopyHeld, Detached, ReportLost, Settled

DELAYS = r"holdfast\.delays\.\d\d"


class OrderPlaced(Event, type="order.placed"):
    order: str


class BillSent(Event, type="bill.sent"):
    order: str


class Shop:
    """The worker of the page. Its handler fails the first time; for the order `refused` always, until `mended`."""

    def __init__(self, host: VirtualHost) -> None:
        self.host = host
        self.facts = Facts()
        self.mended = False

    def worker(self) -> Worker:
        worker = Worker("shop", settings=self.settings("shop"), listeners=[self.facts.record])

        @worker.handler(OrderPlaced, retry=Retry(attempts=2, backoff=fixed(0.1)))
        async def pack(event: OrderPlaced, ctx: Context) -> None:
            if not self.mended and (ctx.attempt == 1 or event.order == "refused"):
                raise ValueError(event.order)
            await ctx.publish(BillSent(order=event.order))
            await ctx.publish(BillSent(order=event.order), delay=0.1)

        @worker.handler(BillSent)
        async def post(event: BillSent) -> None: ...

        return worker

    def settings(self, user: str, **broker: str) -> Settings:
        given = {"url": self.host.url(user), "topology": "verify", "max_delay": 1, "publish_timeout": 5, **broker}
        return load_settings(_env_file=None, broker=given, idempotency={"url": "memory://"}, worker={"grace": 0.2})

    async def publish(self, *orders: str, user: str = "checkout", delay: float | None = None) -> None:
        async with Publisher(self.settings(user)) as publisher:
            for order in orders:
                await publisher.publish(OrderPlaced(order=order), delay=delay)

    async def declare(self) -> None:
        """What the worker needs is there."""
        await apply_topology(self.settings("shop-topology").broker, self.worker().topology())

    async def fill(self) -> None:
        """One letter lies in `shop.pack.dead`."""
        async with running(self.worker()):
            await self.publish("refused")
            await self.facts.settled("dead_lettered")
        self.facts.all.clear()


@pytest.fixture
async def shop(rabbit: Rabbit, unique: str) -> AsyncIterator[Shop]:
    with a_virtual_host(rabbit, unique) as host:
        shop = Shop(host)
        await shop.declare()
        yield shop


async def test_a_worker_without_the_right_to_configure_retries_publishes_and_dead_letters(shop: Shop) -> None:
    async with running(shop.worker()):
        await shop.publish("o-1", "refused")
        await shop.publish("o-2", delay=0.1)
        handled = await shop.facts.settled("handled", count=6)
        [dead] = await shop.facts.settled("dead_lettered")

    assert {fact.handler for fact in handled} == {"pack", "post"}
    assert (dead.reason, dead.error) == ("exhausted", "refused")
    assert not shop.facts.of(CopyHeld) and not shop.facts.of(ReportLost)


@pytest.mark.parametrize("partitions", [1, 2])
async def test_an_ordered_worker_needs_no_more_than_the_page_grants(shop: Shop, partitions: int) -> None:
    shop.host.give("shop", read=readable_by_ordered(partitions))
    worker = Worker("shop", settings=shop.settings("shop"), listeners=[shop.facts.record])

    @worker.handler(OrderPlaced, ordered=Ordered(by="order", partitions=partitions), retry=Retry(2, backoff=fixed(0.1)))
    async def store(event: OrderPlaced, ctx: Context) -> None:
        if ctx.attempt == 1:
            raise ValueError("not now")

    await apply_topology(shop.settings("shop-topology").broker, worker.topology())
    async with running(worker):
        await shop.publish("o-1", "o-2", "o-3")
        await shop.facts.settled("handled", count=3)

    assert not shop.facts.of(CopyHeld) and not shop.facts.of(Detached)


async def test_an_operator_finds_reads_replays_and_discards(shop: Shop, tmp_path: Path) -> None:
    await shop.fill()
    async with a_desk(shop.settings("operator", topology="declare"), tmp_path) as desk:
        places = await desk.queues()
        shop.mended = True
        async with running(shop.worker()):
            replayed = await desk.work(desk.replay("shop.pack.dead", Selection()), QUICK).run()
        shop.mended = False
        await shop.fill()
        await desk.read("shop.pack.dead")
        discarded = await desk.work(desk.discard("shop.pack.dead", Selection()), QUICK).run()

    assert [(place.queue, place.letters) for place in places] == [("shop.pack.dead", 1), ("shop.post.dead", 0)]
    assert (replayed.state, replayed.counts) == ("done", {"handled": 1})
    assert discarded.state == "done"
    assert not shop.facts.of(ReportLost)


def test_users_that_may_do_nothing_but_look_are_enough_for_the_doctor_and_for_check(shop: Shop, tmp_path: Path) -> None:
    copy_app("packing", tmp_path)
    with with_users(tmp_path) as (url, more):
        env = environment(
            HOLDFAST_BROKER__URL=shop.host.url("watch"),
            HOLDFAST_BROKER__MANAGEMENT_URL=shop.host.management_url("watch"),
            HOLDFAST_BROKER__MAX_DELAY="1",
            HOLDFAST_IDEMPOTENCY__URL=url,
            HOLDFAST_IDEMPOTENCY__PASSWORD_FILE=more["password_file"],
        )

        doctor = holdfast("doctor", "app:worker", "--json", folder=tmp_path, env=env)
        check = holdfast("check", "app:worker", "--connect", folder=tmp_path, env=env)

    told = json.loads(doctor.stdout)
    assert (doctor.returncode, check.returncode) == (0, 0), doctor.stdout + check.stdout + check.stderr
    assert {finding["code"] for finding in told["findings"]} == {"arguments-unread"}
    assert any("management API: http" in looked for looked in told["looked_at"])


async def test_a_recorder_writes_the_tape_and_says_which_right_it_lacks(
    rabbit: Rabbit, unique: str, tmp_path: Path
) -> None:
    with a_virtual_host(rabbit, unique) as host:
        shop, stream = Shop(host), "holdfast.journal"
        owner, own = shop.settings("shop-topology", stream=stream), shop.settings("archivist", stream=stream)
        tape = KeptFile(tmp_path / "tape.db", own)
        await apply_topology(owner.broker, topology_of((), owner.broker))
        await shop.publish("o-1", "o-2")

        async def record() -> int:
            async with a_broker(own) as broker:
                await broker.declare(events_topology(own.broker), own.broker.topology)
                return await Recorder(tape.database, broker, own, emit=shop.facts.record, clock=REAL).catch_up()

        recorded = await record()
        host.give("archivist", read="^$")
        with pytest.raises(BrokerUnavailable, match=f"read access to queue '{stream}' in vhost"):
            await record()
        host.give("archivist", write="^$")
        with pytest.raises(PublishRefused, match=r"write access to exchange 'amq\.default' in vhost"):
            await record()

    assert recorded == 2


async def test_a_type_that_may_not_be_published_is_refused_and_those_next_to_it_published(
    shop: Shop,
) -> None:
    events = [OrderPlaced(order="1"), BillSent(order="2"), OrderPlaced(order="3")]

    async with Publisher(shop.settings("checkout")) as publisher:
        first, second, third = await publisher.publish_many(events)
    async with a_broker(shop.settings("guest")) as broker:
        kept = await broker.count("shop.pack")

    assert isinstance(second, PublishRefused) and "write access to topic 'bill.sent'" in str(second)
    assert not isinstance(first, Exception) and not isinstance(third, Exception), (first, third)
    assert kept is not None and kept.ready >= 2


@pytest.mark.parametrize(
    ("rights", "order", "kind", "told"),
    [
        ({"read": "^$"}, "o-1", Detached, "read access to queue 'shop.pack' in vhost"),
        ({"write": rf"^(events|{DELAYS})$"}, "refused", CopyHeld, "write access to exchange 'amq.default' in vhost"),
        (
            {"write": r"^(amq\.default|events)$"},
            "o-1",
            CopyHeld,
            "write access to exchange 'holdfast.delays.00' in vhost",
        ),
        ({"write": rf"^(amq\.default|{DELAYS})$"}, "o-1", Settled, "write access to exchange 'events' in vhost"),
    ],
    ids=["consume", "dead-letter", "delay", "publish"],
)
async def test_a_right_that_a_worker_lacks_is_told_in_one_line_and_its_event_is_kept(
    shop: Shop, rights: dict[str, str], order: str, kind: type[Any], told: str
) -> None:
    await shop.publish(order)
    shop.host.give("shop", **rights)
    worker = shop.worker()

    run = asyncio.create_task(worker.run())
    [fact] = await shop.facts.until(kind, lambda fact: told in (fact.error or ""))
    worker.stop()
    await run

    assert "\n" not in fact.error and "refused for user 'shop'" in fact.error
    async with a_broker(shop.settings("guest")) as broker:
        await eventually(lambda: lying_in(broker, "shop.pack", "shop.pack.dead"), 1)


async def test_a_worker_that_may_not_tell_of_a_replay_says_so_and_handles_it(shop: Shop, tmp_path: Path) -> None:
    await shop.fill()
    shop.mended = True
    shop.host.give("shop", write=rf"^(amq\.default|events|{DELAYS})$")

    async with a_desk(shop.settings("operator", topology="declare"), tmp_path) as desk, running(shop.worker()):
        await desk.read("shop.pack.dead")
        replayed = await desk.work(desk.replay("shop.pack.dead", Selection()), Pace(wait=0.5, canary=False)).run()
        [lost] = await shop.facts.until(ReportLost)
        await shop.facts.settled("handled")

    assert replayed.state == "waiting"
    assert "write access to exchange 'holdfast.replay' in vhost" in lost.error


@pytest.mark.parametrize(
    ("rights", "told"),
    [
        ({"configure": "^$"}, "configure access to exchange 'events' in vhost"),
        (
            {"configure": r"^(events|holdfast\.unrouted)$"},
            "configure or read access to exchange 'holdfast.delay.out' in vhost",
        ),
        ({"write": "^$"}, "write access to exchange 'holdfast.unrouted' in vhost"),
        ({"write": r"^(holdfast\..*|shop\..*)$"}, "write access to exchange 'amq.default' in vhost"),
        ({"read": r"^(holdfast\..*|shop\..*)$"}, "read access to exchange 'events' in vhost"),
    ],
)
async def test_a_right_that_is_lacking_to_declare_is_told_in_one_line(
    rabbit: Rabbit, unique: str, rights: dict[str, str], told: str
) -> None:
    with a_virtual_host(rabbit, unique) as host:
        shop = Shop(host)
        host.give("shop-topology", **rights)

        with pytest.raises(TopologyError) as refused:
            await shop.declare()

    assert said(told, str(refused.value)) and "grant the right" in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("rights", "told"),
    [
        ({"configure": "^$"}, "configure access to queue 'shop.pack.dead.reader' in vhost"),
        ({"read": "^$"}, "read access to queue 'shop.pack.dead' in vhost"),
        ({"configure": r"\.reader$"}, "configure access to exchange 'holdfast.replay' in vhost"),
        ({"write": "^amq.default$"}, "write access to queue 'holdfast.replay."),
        ({"write": r"^holdfast\.replay\..*$"}, "write access to exchange 'amq.default' in vhost"),
    ],
)
async def test_a_right_that_an_operator_lacks_is_told_in_one_line_and_the_letter_stays(
    shop: Shop, tmp_path: Path, rights: dict[str, str], told: str
) -> None:
    await shop.fill()
    shop.host.give("operator", **rights)

    async with a_desk(shop.settings("operator", topology="declare"), tmp_path) as desk:
        try:
            await desk.read("shop.pack.dead")
            line = (await desk.work(desk.replay("shop.pack.dead", Selection()), QUICK).run()).detail
        except (BrokerUnavailable, TopologyError) as error:
            line = str(error)
        left = await lying_in(desk.broker, "shop.pack.dead")

    assert said(told, line) and "\n" not in line
    assert left == 1


async def test_a_publisher_without_the_right_to_write_is_told_so(shop: Shop) -> None:
    shop.host.give("checkout", write=rf"^{DELAYS}$")

    with pytest.raises(
        PublishRefused, match=r"write access to exchange 'events' in vhost .* refused for user 'checkout'"
    ):
        await shop.publish("o-1")


def said(told: str, line: str) -> bool:
    """Whether a line says it. Since 3.11 RabbitMQ names the right itself, and of two the one that is missing."""
    first, _, second = told.partition(" or read access ")
    return told in line or (bool(second) and f"{first} access {second}" in line)


async def lying_in(broker: Broker, *queues: str) -> int:
    depths = [await broker.count(queue) for queue in queues]
    return sum(depth.ready for depth in depths if depth is not None)
