"""What breaks between a worker and its broker, and what still holds: nothing is lost, all of it mends itself."""

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from breaking import delete, messages_in, through, with_broker, with_url, with_worker
from proxy import Direction, Proxy, proxy_to
from running import a_broker, a_worker, depth, publish_all, running, settings_for, started, take, until_ready
from waiting import LIMIT, Bell, Facts, Tally, eventually
from yarl import URL

from holdfast import (
    BrokerUnavailable,
    Context,
    Event,
    Publisher,
    PublishError,
    Reject,
    Retry,
    Settings,
    fixed,
)
from holdfast.broker import Topology, ladder
from holdfast.broker.amqp import topology as topologies
from holdfast.broker.amqp.connection import WiredConnection, close_quietly
from holdfast.events import headers as h
from holdfast.telemetry import Attached, CopyHeld, Detached, Disconnected, Settled, SettlementStale, Stopped
from holdfast.testing.servers import Node


class Paid(Event, type="paid"):
    order: str


class Shipped(Event, type="shipped", key="order"):
    order: str


SOON = fixed(0.1, jitter=False)
LOWEST = ladder.level_name(0)
"""Where a copy rests for 0.1 s."""


@pytest.fixture
def own(rabbitmq_node: Node, unique: str) -> Settings:
    """Settings for the node that a test may break. Classic queues: `rabbitmqctl` counts their messages exactly."""
    return with_broker(settings_for(rabbitmq_node.url, unique), queue_type="classic")


@pytest.fixture
async def proxy(settings: Settings) -> AsyncIterator[Proxy]:
    async with proxy_to(settings.broker.url.get_secret_value()) as between:
        yield between


async def declare(settings: Settings, topology: Topology) -> None:
    async with a_broker(settings) as broker:
        await broker.declare(topology)


class Orders:
    """A handler's own account: how often it began, ended and was cancelled for each order. It holds `hold` ones."""

    def __init__(self, *hold: str) -> None:
        self.hold = set(hold)
        self.began: Tally[str] = Tally()
        self.ended: Tally[str] = Tally()
        self.cancelled: Counter[str] = Counter()
        self.go = asyncio.Event()

    async def handle(self, event: Paid) -> None:
        self.began[event.order] += 1
        try:
            if event.order in self.hold:
                await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled[event.order] += 1
            raise
        self.ended[event.order] += 1

    async def until_began(self, count: int) -> None:
        await self.began.until(lambda: self.began.total() == count)


# The ack is last


@pytest.mark.parametrize("missing", ["delay exchange", "dead-letter queue"])
async def test_an_original_whose_copy_has_nowhere_to_go_is_kept_and_not_handled_again(
    own: Settings, rabbitmq_node: Node, missing: str
) -> None:
    facts, runs = Facts(), Counter[str]()
    worker = a_worker(with_broker(own, topology="skip"), facts)

    @worker.handler(Paid, retry=Retry(backoff=SOON))
    async def handle(event: Paid, ctx: Context) -> None:
        runs[event.order] += 1
        if event.order == "retried" and ctx.attempt == 1:
            raise OSError("not yet")
        if event.order == "rejected":
            raise Reject("never")

    queue = f"{worker.name}.handle"
    held, passing, outcome = (
        ("retried", "rejected", "postponed")
        if missing == "delay exchange"
        else ("rejected", "retried", "dead_lettered")
    )
    await declare(own, worker.topology())
    if missing == "delay exchange":
        await delete(own, exchanges=(LOWEST,))
    else:
        await delete(own, queues=(f"{queue}.dead",))

    async with running(worker):
        await publish_all(own, [Paid(order=held)])
        await facts.until(CopyHeld)
        await publish_all(own, [Paid(order=passing), Paid(order="good")])
        await facts.settled("handled", count=1 if passing == "rejected" else 2)
        await facts.until(CopyHeld, count=3)
        kept = await messages_in(rabbitmq_node, queue)
        runs_while_held, ended_while_held = runs[held], [f for f in facts.of(Settled) if f.outcome == outcome]

        await declare(own, worker.topology())
        await facts.settled(outcome)
        await facts.settled("handled", count=2)
        await eventually(lambda: messages_in(rabbitmq_node, queue), 0)

    assert (kept, runs_while_held, ended_while_held) == (1, 1, [])
    assert runs == {"retried": 2, "rejected": 1, "good": 1}
    assert await depth(own, f"{queue}.dead") == 1


async def test_a_copy_that_is_not_confirmed_is_waited_for_and_the_original_is_kept(
    own: Settings, rabbitmq_node: Node
) -> None:
    facts, began, go = Facts(), asyncio.Event(), asyncio.Event()
    async with proxy_to(own.broker.url.get_secret_value()) as between:
        worker = a_worker(through(between, own), facts)

        @worker.handler(Paid)
        async def handle(event: Paid) -> None:
            if event.order == "o-2":
                began.set()
                await go.wait()
            raise Reject("never")

        queue = f"{worker.name}.handle"
        async with running(worker):
            await publish_all(own, [Paid(order="o-1")])
            await facts.settled("dead_lettered")
            await publish_all(own, [Paid(order="o-2")])
            await began.wait()
            between.swallow(Direction.TO_CLIENT)
            go.set()
            await eventually(lambda: depth(own, f"{queue}.dead"), 2)
            kept, ended = await messages_in(rabbitmq_node, queue), len(facts.of(Settled))

            between.resume()
            await facts.settled("dead_lettered", count=2)
            await eventually(lambda: messages_in(rabbitmq_node, queue), 0)

    assert (kept, ended) == (1, 1)
    assert await depth(own, f"{queue}.dead") == 2


async def test_a_copy_still_held_when_the_worker_stops_leaves_the_original_in_its_queue(settings: Settings) -> None:
    facts = Facts()
    worker = a_worker(with_worker(with_broker(settings, topology="skip"), grace=0.1), facts)

    @worker.handler(Paid)
    async def handle(event: Paid) -> None:
        raise Reject("never")

    await declare(settings, worker.topology())
    await delete(settings, queues=(f"{worker.name}.handle.dead",))

    async with running(worker):
        await publish_all(settings, [Paid(order="o-1")])
        await facts.until(CopyHeld)

    [ended] = await facts.settled()
    assert ended.outcome == "given_back"
    assert await depth(settings, f"{worker.name}.handle") == 1


@pytest.mark.parametrize("deleted", ["dead-letter queue", "delay exchange", "delay queue", "whole delay level"])
async def test_what_was_deleted_is_declared_again_when_a_copy_needs_it(own: Settings, deleted: str) -> None:
    facts = Facts()
    worker = a_worker(own, facts)

    @worker.handler(Paid, retry=Retry(attempts=2, backoff=SOON))
    async def handle(event: Paid) -> None:
        raise OSError("always")

    dead = f"{worker.name}.handle.dead"
    async with running(worker):
        await publish_all(own, [Paid(order="o-1")])
        await facts.settled("dead_lettered")
        await delete(
            own,
            exchanges=(LOWEST,) if "exchange" in deleted or "whole" in deleted else (),
            queues={"dead-letter queue": (dead,), "delay exchange": ()}.get(deleted, (LOWEST,)),
        )

        await publish_all(own, [Paid(order="o-2")])
        await facts.settled("dead_lettered", count=2)

    assert facts.of(CopyHeld)
    assert [fact.outcome for fact in await facts.settled()] == ["postponed", "dead_lettered"] * 2
    assert await depth(own, dead) == (1 if deleted == "dead-letter queue" else 2)


# Connections that are cut


async def test_handlers_outlive_a_connection_that_is_cut_and_take_over_their_redeliveries(
    settings: Settings, proxy: Proxy
) -> None:
    facts, orders = Facts(), Orders("o-0", "o-1", "o-2", "o-3")
    worker = a_worker(with_worker(through(proxy, settings), concurrency=4), facts)
    worker.handler(Paid)(orders.handle)
    everything = [f"o-{n}" for n in range(20)]

    async with running(worker):
        await publish_all(settings, [Paid(order=order) for order in everything])
        await orders.until_began(4)

        proxy.cut()
        await facts.until(Attached, count=2)
        await publish_all(settings, [Paid(order="later")])
        orders.go.set()
        ended = await facts.settled("handled", count=21)

    assert orders.began == orders.ended == Counter([*everything, "later"])
    assert not orders.cancelled
    assert len(ended) == len(facts.of(Settled)) == 21
    assert await depth(settings, f"{worker.name}.handle") == 0


async def test_an_event_that_ends_without_a_connection_is_acked_unrun_when_redelivered(
    settings: Settings, proxy: Proxy
) -> None:
    facts, names = Facts(), [f"o-{n}" for n in range(5)]
    orders = Orders(*names)
    worker = a_worker(through(proxy, settings), facts)
    worker.handler(Paid)(orders.handle)
    queue = f"{worker.name}.handle"

    async with running(worker):
        await publish_all(settings, [Paid(order=order) for order in names])
        await orders.until_began(5)

        await proxy.refuse()
        proxy.cut()
        await facts.until(Disconnected, lambda fact: fact.role == "consume")
        orders.go.set()
        await facts.until(SettlementStale, count=5)
        kept = await depth(settings, queue)
        await proxy.accept()
        await facts.settled("duplicate", count=5)

    assert kept == 5
    assert orders.began == orders.ended == Counter(names)
    assert await depth(settings, queue) == 0


async def test_an_ack_lost_with_its_connection_is_repeated_and_the_handler_runs_once(
    settings: Settings, proxy: Proxy
) -> None:
    facts, orders = Facts(), Orders("o-1")
    worker = a_worker(through(proxy, settings), facts)
    worker.handler(Paid)(orders.handle)

    async with running(worker):
        await publish_all(settings, [Paid(order="o-1")])
        await orders.until_began(1)
        proxy.swallow(Direction.TO_SERVER)
        orders.go.set()
        await facts.settled("handled")
        await proxy.until_withheld(Direction.TO_SERVER)

        proxy.cut()
        proxy.resume()
        await facts.settled("duplicate")

    assert orders.began == {"o-1": 1}
    assert await depth(settings, f"{worker.name}.handle") == 0


async def test_what_one_handler_finished_without_a_connection_is_not_taken_from_another(
    settings: Settings, proxy: Proxy
) -> None:
    facts, names = Facts(), [f"o-{n}" for n in range(20)]
    first, second = Orders(*names), Orders(*names)
    worker = a_worker(through(proxy, settings), facts)
    worker.handler(Paid, name="first")(first.handle)
    worker.handler(Paid, name="second", concurrency=1, prefetch=20)(second.handle)

    async with running(worker):
        await publish_all(settings, [Paid(order=order) for order in names])
        await first.until_began(20)
        await second.until_began(1)

        await proxy.refuse()
        proxy.cut()
        await facts.until(Disconnected, lambda fact: fact.role == "consume")
        first.go.set()
        await facts.until(SettlementStale, count=20)
        await proxy.accept()
        await facts.settled("duplicate", count=20)
        second.go.set()
        await facts.settled("handled", count=40)

    assert first.ended == second.ended == Counter(names)


async def test_a_connection_cut_while_the_topology_is_declared_only_delays_a_worker(
    settings: Settings, proxy: Proxy
) -> None:
    facts, orders = Facts(), Orders()
    worker = a_worker(through(proxy, settings), facts)
    worker.handler(Paid)(orders.handle)
    proxy.cut_after(3_000, Direction.TO_SERVER)

    async with running(worker):
        await publish_all(settings, [Paid(order="o-1")])
        await facts.settled("handled")

    assert facts.of(Disconnected, lambda fact: fact.role == "publish")


async def test_a_connection_cut_at_any_moment_of_a_declaration_is_noticed_at_once(
    settings: Settings, proxy: Proxy
) -> None:
    url = URL(proxy.url(settings.broker.url.get_secret_value())).update_query(heartbeat=2)
    took = []

    for moment in range(40):  # aiormq lets who asks on such a channel wait for all of his time-out
        connection = WiredConnection(url)
        await connection.connect()
        declaring_it = asyncio.create_task(topologies.declare(connection, ladder.ladder(60)))
        asyncio.get_running_loop().call_later(moment * 0.0003, proxy.cut)
        begin = asyncio.get_running_loop().time()
        await asyncio.wait({declaring_it}, timeout=3)
        took.append(asyncio.get_running_loop().time() - begin)
        declaring_it.cancel()
        await asyncio.gather(declaring_it, return_exceptions=True)
        await close_quietly(connection, 1)

    assert max(took) < 3


async def test_a_worker_can_be_stopped_while_its_connections_come_back(settings: Settings, proxy: Proxy) -> None:
    for _ in range(8):  # each stop finds the reconnect somewhere else
        facts = Facts()
        worker = a_worker(through(proxy, settings), facts)
        worker.handler(Paid)(Orders().handle)

        async with asyncio.timeout(LIMIT), running(worker):
            proxy.cut()
            await facts.until(Attached, count=2)

        assert facts.of(Stopped)


async def test_a_peer_that_falls_silent_is_noticed_by_its_heartbeat(settings: Settings, proxy: Proxy) -> None:
    facts, orders = Facts(), Orders("o-1")
    worker = a_worker(with_broker(through(proxy, settings), heartbeat=1), facts)
    worker.handler(Paid)(orders.handle)

    async with running(worker):
        await publish_all(settings, [Paid(order="o-1")])
        await orders.until_began(1)

        proxy.swallow()
        for role in ("consume", "publish"):
            await facts.until(Disconnected, lambda fact, role=role: fact.role == role)  # type: ignore[misc]
        noticed = worker.health()
        proxy.cut()
        proxy.resume()
        await facts.until(Attached, count=2)
        orders.go.set()
        await publish_all(settings, [Paid(order="o-2")])
        await facts.settled("handled", count=2)

    assert not noticed.ready
    assert f"consumer of {worker.name}.handle" in noticed.missing
    assert orders.began == orders.ended == {"o-1": 1, "o-2": 1}


# Brokers that go


async def test_every_confirmed_event_is_handled_though_the_broker_is_killed_under_load(
    own: Settings, rabbitmq_node: Node
) -> None:
    """The kill comes second: up to some version a quorum queue declared just before a SIGKILL is lost by the broker,
    which writes down where a new queue's data is only after a while, or when it is stopped in order."""
    facts, orders, confirmed = Facts(), Orders(), Tally[str]()
    own = with_broker(own, queue_type="quorum", publish_timeout=40.0)
    worker = a_worker(own, facts)
    worker.handler(Paid)(orders.handle)
    numbers, enough = itertools.count(), asyncio.Event()

    async def publish(publisher: Publisher) -> None:
        while not enough.is_set():
            order = f"o-{next(numbers)}"
            with suppress(PublishError):
                await publisher.publish(Paid(order=order))
                confirmed[order] += 1

    async with running(worker), Publisher(own) as publisher, asyncio.TaskGroup() as load:
        for _ in range(8):
            load.create_task(publish(publisher))

        for times, fault in enumerate((rabbitmq_node.stop, rabbitmq_node.kill), start=1):
            before = len(confirmed)
            await confirmed.until(lambda n=before: len(confirmed) > n + 200)  # type: ignore[misc]
            await asyncio.to_thread(fault)
            before = len(orders.ended)
            await asyncio.to_thread(rabbitmq_node.start)
            await facts.until(Attached, count=1 + times)
            await orders.ended.until(lambda n=before: len(orders.ended) > n + 200)  # type: ignore[misc]

        enough.set()
        await Bell(confirmed.bell, orders.ended.bell).until_true(lambda: confirmed.keys() <= orders.ended.keys())
        await until_ready(worker)

    repeats = orders.ended.total() - len(orders.ended)
    assert repeats <= 2 * 2 * worker.settings.worker.concurrency, "only what was in flight may be handled twice"
    assert await depth(own, f"{worker.name}.handle") == 0


async def test_a_worker_started_without_a_broker_waits_for_it(settings: Settings, proxy: Proxy) -> None:
    facts, orders = Facts(), Orders()
    worker = a_worker(through(proxy, settings), facts)
    worker.handler(Paid)(orders.handle)
    await proxy.refuse()

    async with started(worker):
        await facts.until(Disconnected, count=2)
        waiting = worker.health()
        await proxy.accept()
        await until_ready(worker)
        await publish_all(settings, [Paid(order="o-1")])
        await facts.settled("handled")

    assert not waiting.ready
    assert "starting" in waiting.missing


async def test_a_worker_that_waits_for_a_broker_can_be_stopped(settings: Settings, proxy: Proxy) -> None:
    facts = Facts()
    worker = a_worker(through(proxy, settings), facts)
    worker.handler(Paid)(Orders().handle)
    await proxy.refuse()

    async with started(worker) as run:
        await facts.until(Disconnected)
        worker.stop()
        unfinished = await asyncio.wait_for(run, LIMIT)

    assert unfinished == 0


async def test_a_refused_login_ends_a_worker_with_one_clear_line(settings: Settings) -> None:
    url = settings.broker.url.get_secret_value().replace("guest:guest@", "guest:canary@")
    worker = a_worker(with_url(settings, url), Facts())
    worker.handler(Paid)(Orders().handle)

    with pytest.raises(BrokerUnavailable, match="refused this client: login refused") as caught:
        await worker.run()

    assert "\n" not in str(caught.value)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("ordered", [False, True], ids=["handler", "ordered handler"])
async def test_a_queue_without_a_leader_ends_no_consumer_of_another(
    own: Settings, rabbitmq_node: Node, ordered: bool
) -> None:
    """RabbitMQ ends the connection that asks to consume it."""
    facts, orders, own = Facts(), Orders(), with_broker(own, queue_type="quorum")
    worker = a_worker(own, facts)
    worker.handler(Paid)(orders.handle)

    @worker.handler(Shipped, queue=f"{worker.name}.parcels", ordered=ordered)
    async def ship(event: Shipped) -> None: ...

    member = f"quorum_queues, {{'%2F_{worker.name}.parcels', node()}}"
    await declare(own, worker.topology())
    await asyncio.to_thread(rabbitmq_node.ctl, "eval", f"ra:stop_server({member}).")

    async with started(worker):
        await facts.until(
            Detached, lambda fact: f"{worker.name}.parcels cannot be consumed on a connection of its own" in fact.error
        )
        before = len(facts.of(Disconnected))
        await publish_all(own, [Paid(order="o-1")])
        await facts.settled("handled")
        await facts.until(Detached, lambda fact: "has it no leader?" in fact.error, count=3)
        assert not worker.health().ready and len(facts.of(Disconnected)) == before

        await asyncio.to_thread(rabbitmq_node.ctl, "eval", f"ra:restart_server({member}).")
        await until_ready(worker)
        await publish_all(own, [Shipped(order="o-1")])
        await facts.settled("handled", count=2)


async def test_a_worker_refused_its_second_connection_is_not_ready_until_it_is_admitted(
    own: Settings, rabbitmq_node: Node
) -> None:
    facts, orders = Facts(), Orders()
    worker = a_worker(own, facts)
    worker.handler(Paid)(orders.handle)
    await asyncio.to_thread(rabbitmq_node.ctl, "set_user_limits", "guest", '{"max-connections": 1}')

    try:
        async with started(worker):
            await facts.until(Detached, lambda fact: "refused this client" in fact.error)
            missing = worker.health()
            await asyncio.to_thread(rabbitmq_node.ctl, "clear_user_limits", "guest", "all")
            await until_ready(worker)
            await publish_all(own, [Paid(order="o-1")])
            await facts.settled("handled")
    finally:
        await asyncio.to_thread(rabbitmq_node.ctl, "clear_user_limits", "guest", "all")

    assert not missing.ready
    assert f"consumer of {worker.name}.handle" in missing.missing


# Queues that go


async def test_a_deleted_work_queue_is_noticed_and_declared_again(settings: Settings) -> None:
    facts, orders = Facts(), Orders("o-1")
    worker = a_worker(settings, facts)
    worker.handler(Paid)(orders.handle)
    queue = f"{worker.name}.handle"

    async with running(worker):
        await publish_all(settings, [Paid(order="o-1")])
        await orders.until_began(1)
        for times in (1, 2):
            await delete(settings, queues=(queue,))
            await facts.until(Detached, lambda fact: "cancelled the consumer" in fact.error, count=times)
            await facts.until(Attached, count=1 + times)
            await publish_all(settings, [Paid(order=f"after {times}")])
            await facts.settled("handled", count=times)
        orders.go.set()
        await facts.until(SettlementStale)

    assert orders.began == orders.ended == {"o-1": 1, "after 1": 1, "after 2": 1}
    assert not orders.cancelled


@pytest.mark.parametrize("mode", ["verify", "skip"])
async def test_a_deleted_queue_that_may_not_be_declared_is_reported_until_it_is_declared(
    settings: Settings, mode: str
) -> None:
    facts, orders = Facts(), Orders()
    worker = a_worker(with_broker(settings, topology=mode), facts)
    worker.handler(Paid)(orders.handle)
    queue = f"{worker.name}.handle"
    await declare(settings, worker.topology())

    async with running(worker):
        await delete(settings, queues=(queue,))
        gone = await facts.until(Detached, lambda fact: "no queue" in fact.error, count=2)
        missing = worker.health()
        await declare(settings, worker.topology())
        await until_ready(worker)
        await publish_all(settings, [Paid(order="o-1")])
        await facts.settled("handled")

    assert not missing.ready
    assert f"consumer of {queue}" in missing.missing
    assert queue in gone[0].error


# Workers that go


async def test_attempts_and_the_first_failure_outlive_the_workers_that_saw_them(settings: Settings) -> None:
    attempts = []
    before = datetime.now(UTC)
    between = before

    for outcome in ("postponed", "postponed", "dead_lettered"):
        facts = Facts()
        worker = a_worker(settings, facts)

        @worker.handler(Paid, retry=Retry(attempts=3, backoff=SOON))
        async def handle(event: Paid, ctx: Context) -> None:
            attempts.append(ctx.attempt)
            raise OSError(f"attempt {ctx.attempt}")

        async with running(worker):
            if not attempts:
                await publish_all(settings, [Paid(order="o-1")])
            await facts.settled(outcome)
            worker.stop()
        between = between if between > before else datetime.now(UTC)

    async with a_broker(settings) as broker:
        [letter] = await take(broker, f"{worker.name}.handle.dead", 1)
    assert attempts == [1, 2, 3]
    assert letter.headers[h.ATTEMPT] == 3
    assert before < datetime.fromisoformat(letter.headers[h.FIRST_FAILED_AT]) < between
    assert datetime.fromisoformat(letter.headers[h.FAILED_AT]) > between
