"""An event that completed is not handled again: workers, a real Redis and a real RabbitMQ, and what breaks them."""

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pika
import pytest
from breaking import through, with_broker, with_worker
from children import Child, a_child, until_said
from claims_app import First, Second, Work
from proxy import Direction, proxy_to
from running import a_broker, a_worker, depth, publish_all, running, settings_for, take, until_ready
from waiting import Arrivals, Bell, Facts, eventually

from holdfast import Context, Event, Publisher, Retry, Settings, Worker, fixed
from holdfast.events import Message, uuid7
from holdfast.events import headers as h
from holdfast.idempotency import open_heart
from holdfast.telemetry import (
    Attached,
    ClaimsEndangered,
    ClaimsLost,
    CrashSuspected,
    Detached,
    IdGuessed,
    LeaseLost,
    MissingId,
    Paused,
    Resumed,
    Settled,
)
from holdfast.testing.servers import Node

LEASE = 3.0


class Paid(Event, type="paid"):
    order: str


@pytest.fixture
def claiming(rabbitmq_url: str, redis_url: str, unique: str) -> Settings:
    """Settings with claims in Redis, under a prefix of this test's own."""
    return settings_for(rabbitmq_url, unique, redis_url, prefix=unique, lease=LEASE)


@pytest.fixture
def breakable(rabbitmq_url: str, redis_node: Node, unique: str) -> Settings:
    """The same, in a Redis that this test may break."""
    return settings_for(rabbitmq_url, unique, redis_node.url, prefix=unique, lease=LEASE, timeout=0.3)


def with_claims(settings: Settings, **changes: Any) -> Settings:
    return settings.model_copy(update={"idempotency": settings.idempotency.model_copy(update=changes)})


async def twice(settings: Settings, event: Event, *, times: int = 2) -> None:
    """Publish one event several times, as a publisher does that had no answer."""
    async with Publisher(settings) as publisher:
        metadata = await publisher.publish(event)
        await asyncio.gather(*(publisher.publish(event, metadata=metadata) for _ in range(times - 1)))


@asynccontextmanager
async def a_claimant(
    settings: Settings, ledger: Path, *, queues: int = 1, only: str | None = "work", **more: str
) -> AsyncIterator[Child]:
    variables = {"HOLDFAST_IDEMPOTENCY__PREFIX": settings.idempotency.prefix, "TEST_LEDGER": str(ledger), **more}
    async with a_child(settings, "claims_app", queues=queues, only=only, **variables) as child:
        yield child


def effects(ledger: Path, beginning: str = "effect") -> Counter[str]:
    lines = ledger.read_text().splitlines() if ledger.exists() else []
    return Counter(line.removeprefix(beginning).strip() for line in lines if line.startswith(beginning))


async def test_a_hundred_duplicates_on_four_processes_have_one_effect(claiming: Settings, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    async with AsyncExitStack() as stack:
        children = [await stack.enter_async_context(a_claimant(claiming, ledger)) for _ in range(4)]
        await twice(claiming, Work(name="o-1"), times=100)

        def through_all() -> bool:
            return (
                sum(len(child.those(f"settled {how}")) for child in children for how in ("handled", "duplicate")) == 100
            )

        await until_said(children, through_all)

    assert effects(ledger) == {"o-1": 1}


async def test_an_event_of_a_killed_worker_is_handled_again_once_its_lease_is_over(
    claiming: Settings, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger"
    async with a_claimant(claiming, ledger) as other, a_claimant(claiming, ledger) as first:
        await publish_all(claiming, [Work(name="o-1", does="wait")])
        victim, heir = await _who_began(first, other)
        victim.send(signal.SIGKILL)
        heir.let_go()
        await heir.until("settled handled")

    assert effects(ledger) == {"o-1": 1}


async def test_where_a_supervisor_saw_it_die_its_events_are_free_before_that(
    claiming: Settings, tmp_path: Path
) -> None:
    ledger, settings = tmp_path / "ledger", with_claims(claiming, lease=600.0)  # longer than any test waits
    async with a_claimant(settings, ledger) as other, a_claimant(settings, ledger) as first:
        await publish_all(settings, [Work(name="o-1", does="wait")])
        victim, heir = await _who_began(first, other)
        [lease] = victim.those("lease ")
        victim.send(signal.SIGKILL)
        heart = open_heart(settings)
        assert heart is not None
        await asyncio.to_thread(heart.stop, bytes.fromhex(lease.split()[1]))
        heir.let_go()
        await heir.until("settled handled")

    assert effects(ledger) == {"o-1": 1}


async def _who_began(*children: Child) -> tuple[Child, Child]:
    await until_said(children, lambda: any(child.those("began") for child in children))
    [victim] = [child for child in children if child.those("began")]
    [heir] = [child for child in children if child is not victim]
    return victim, heir


async def test_killed_between_effect_and_completion_an_event_is_repeated_once(
    breakable: Settings, tmp_path: Path
) -> None:
    """The one documented gap."""
    ledger = tmp_path / "ledger"
    async with proxy_to(breakable.claims_url) as proxy:
        cut_off = with_claims(breakable, url=type(breakable.broker.url)(proxy.url(breakable.claims_url)))
        async with a_claimant(cut_off, ledger) as first:
            await publish_all(breakable, [Work(name="o-1", does="wait")])
            await first.until("began")
            proxy.swallow(Direction.TO_SERVER)
            first.let_go()
            await first.until("effect o-1")
            first.send(signal.SIGKILL)
            await first.ended()
            proxy.cut()

    async with a_claimant(breakable, ledger) as second:
        second.let_go()
        await second.until("settled")
        await until_said([second], lambda: second.those("settled handled") or second.those("settled duplicate"))

    assert effects(ledger) == {"o-1": 2}


async def test_killed_between_completion_and_ack_an_event_is_not_repeated(claiming: Settings, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    async with proxy_to(claiming.broker.url.get_secret_value()) as proxy:
        async with a_claimant(through(proxy, claiming), ledger) as first:
            await publish_all(claiming, [Work(name="o-1", does="wait")])
            await first.until("began")
            proxy.swallow(Direction.TO_SERVER)
            first.let_go()
            await first.until("settled handled")
            first.send(signal.SIGKILL)
            await first.ended()
            proxy.cut()

        async with a_claimant(claiming, ledger) as second:
            await second.until("settled duplicate")

    assert effects(ledger) == {"o-1": 1}


@pytest.mark.timeout(180)
@pytest.mark.parametrize("kind", ["quorum", "classic"])
async def test_an_event_that_kills_its_process_is_quarantined_its_neighbours_are_handled(
    claiming: Settings, tmp_path: Path, kind: str
) -> None:
    ledger, settings = tmp_path / "ledger", with_worker(with_broker(claiming, queue_type=kind), concurrency=21)
    settings = with_claims(settings, lease=1.0)
    queue = f"{settings.broker.exchange}.w.work"
    names = [f"n-{n}" for n in range(20)]
    async with a_claimant(settings, ledger, TEST_NEIGHBOURS="20") as child:
        await publish_all(settings, [Work(name=name, does="stay beside it") for name in names])
        await publish_all(settings, [Work(name="poison", does="kill the process")])
        await child.ended()
    for _ in range(4):
        async with a_claimant(settings, ledger, TEST_NEIGHBOURS="20") as child:
            ended = asyncio.create_task(child.ended())
            dead = asyncio.create_task(child.until("settled dead_lettered"))
            await asyncio.wait({ended, dead}, return_when=asyncio.FIRST_COMPLETED)
            if dead.done():
                await until_said([child], lambda: set(effects(ledger)) == set(names))
                child.send(signal.SIGTERM)
                await ended
                break
            dead.cancel()

    async with a_broker(settings) as broker:
        [letter] = await take(broker, f"{queue}.dead", 1)
    assert (letter.headers[h.REASON], b"poison" in letter.body) == ("crashed", True)
    assert effects(ledger, "began")["poison"] <= 3
    assert effects(ledger) == dict.fromkeys(names, 1)
    assert await depth(settings, f"{queue}.dead") == 0


@pytest.mark.timeout(180)
async def test_along_three_services_each_effect_happens_once_whoever_crashes(
    breakable: Settings, tmp_path: Path
) -> None:
    """The first two services are killed after they published and before that was noted; then all run to the end."""
    ledger = tmp_path / "ledger"
    async with a_claimant(breakable, ledger, queues=4, only=None):
        pass  # every queue is declared now
    for held, event, following in (("first", First, "second"), ("second", Second, "third")):
        ledger.write_text(f"hold {held}\n")
        async with proxy_to(breakable.claims_url) as proxy:
            cut_off = with_claims(breakable, url=type(breakable.broker.url)(proxy.url(breakable.claims_url)))
            async with a_claimant(cut_off, ledger, only=held) as child:
                await publish_all(breakable, [event(name=held)])
                await child.until(f"began {held}")
                proxy.swallow(Direction.TO_SERVER)
                child.let_go()
                queue = f"{breakable.broker.exchange}.w.{following}"
                await eventually(lambda q=queue: depth(breakable, q), 1)  # type: ignore[misc]
                child.send(signal.SIGKILL)
                await child.ended()
                proxy.cut()

        ledger.unlink()
        async with a_claimant(breakable, ledger, queues=4, only=None) as child:
            await child.until("settled duplicate")
            await child.until(f"effect {held}")

        assert effects(ledger) == {held: 1}


async def test_a_late_owner_is_told_and_changes_nothing(breakable: Settings) -> None:
    facts, other_facts, go = Facts(), Facts(), asyncio.Event()
    told: list[bool] = []
    async with proxy_to(breakable.claims_url) as proxy:
        cut_off = with_claims(breakable, url=type(breakable.broker.url)(proxy.url(breakable.claims_url)), lease=1.0)
        late, heir = a_worker(cut_off, facts), a_worker(with_claims(breakable, lease=1.0), other_facts)
        ran: Arrivals[str] = Arrivals()

        @late.handler(Paid, name="handle", prefetch=1)
        async def handle(event: Paid, ctx: Context) -> None:
            ran("late")
            await go.wait()
            told.append(ctx.lease_lost)

        @heir.handler(Paid, name="handle")
        async def inherit(event: Paid, ctx: Context) -> None:
            ran("heir")

        async with running(late):
            event = Paid(order="o-1")
            async with Publisher(breakable) as publisher:
                metadata = await publisher.publish(event)
                assert await ran.next() == "late"
                proxy.swallow()
                await facts.until(LeaseLost)
                async with running(heir):
                    await publisher.publish(event, metadata=metadata)
                    await other_facts.settled("handled")
                    go.set()
                    [fact] = await facts.settled("handled")
                    proxy.resume()
                    await facts.until(Resumed)
                    await publisher.publish(event, metadata=metadata)
                    await Bell(facts, other_facts).until_true(
                        lambda: [*facts.of(Settled, _duplicate), *other_facts.of(Settled, _duplicate)]
                    )

    assert (ran.all, told) == (["late", "heir"], [True])
    assert fact.completion == "unrecorded"


def _duplicate(fact: Settled) -> bool:
    return fact.outcome == "duplicate"


async def test_a_failed_attempt_is_not_a_duplicate_and_a_replayed_dead_letter_runs(claiming: Settings) -> None:
    facts, runs = Facts(), Counter[str]()
    worker = a_worker(claiming, facts)

    @worker.handler(Paid, retry=Retry(attempts=2, backoff=fixed(0.1)))
    async def handle(event: Paid, ctx: Context) -> None:
        runs[event.order] += 1
        if (event.order == "dies" and runs["dies"] < 3) or (event.order == "fails" and ctx.attempt == 1):
            raise RuntimeError("not yet")

    async with running(worker):
        await publish_all(claiming, [Paid(order="fails"), Paid(order="dies")])
        await facts.settled("handled")
        await facts.settled("dead_lettered")
        async with a_broker(claiming) as broker:
            [letter] = await take(broker, f"{worker.name}.handle.dead", 1)
            replay = {h.EVENT_ID: letter.headers[h.EVENT_ID]}
            await broker.publish(
                Message(letter.body, "", f"{worker.name}.handle", replay, uuid7(), type="paid"), timeout=5
            )
            await facts.settled("handled", count=2)

    assert runs == {"fails": 2, "dies": 3}


async def test_nothing_is_left_claimed_by_a_stop_a_cancellation_and_a_cut_connection(
    claiming: Settings, redis_url: str
) -> None:
    import redis.asyncio

    settings, facts, began = with_worker(claiming, grace=0.1), Facts(), asyncio.Event()
    async with proxy_to(settings.broker.url.get_secret_value()) as proxy, redis.asyncio.from_url(redis_url) as server:
        worker = a_worker(through(proxy, settings), facts)

        @worker.handler(Paid)
        async def handle(event: Paid) -> None:
            began.set()
            await asyncio.Event().wait()

        async with running(worker):
            await publish_all(settings, [Paid(order="o-1")])
            await began.wait()
            held = await server.keys(f"{claiming.idempotency.prefix}:{worker.name}*")
            proxy.cut()
        left = await server.keys(f"{claiming.idempotency.prefix}:*")

    assert (len(held), left) == (1, [f"{claiming.idempotency.prefix}:listeners".encode()])


async def test_a_redelivery_joins_the_handler_that_still_runs(claiming: Settings) -> None:
    facts, go, runs = Facts(), asyncio.Event(), Arrivals[str]()
    async with proxy_to(claiming.broker.url.get_secret_value()) as proxy:
        worker = a_worker(through(proxy, claiming), facts)

        @worker.handler(Paid)
        async def handle(event: Paid) -> None:
            runs(event.order)
            await go.wait()

        async with running(worker):
            await publish_all(claiming, [Paid(order="o-1")])
            await runs.next()
            proxy.cut()
            await facts.until(Detached)
            await facts.until(Attached, count=2)
            await until_ready(worker)
            go.set()
            await facts.settled("handled")

    assert runs.all == ["o-1"]
    assert not facts.of(Settled, lambda fact: fact.claim == "busy")


@pytest.mark.timeout(180)
@pytest.mark.parametrize("how", ["killed", "hangs"])
async def test_while_redis_is_away_nothing_is_spent_and_work_resumes_by_itself(
    breakable: Settings, redis_node: Node, how: str
) -> None:
    facts, runs = Facts(), Counter[str]()
    worker = a_worker(breakable, facts)

    @worker.handler(Paid)
    async def handle(event: Paid, ctx: Context) -> None:
        runs[event.order] += 1
        assert ctx.attempt == 1

    async with running(worker):
        await publish_all(breakable, (Paid(order=f"a-{n}") for n in range(50)))
        await facts.settled("handled", count=50)
        await asyncio.to_thread(redis_node.kill if how == "killed" else redis_node.pause)
        await publish_all(breakable, (Paid(order=f"b-{n}") for n in range(200)))
        await facts.until(Paused)
        await until_ready(worker, ready=False)
        away = worker.health().missing
        await asyncio.to_thread(redis_node.start if how == "killed" else redis_node.resume)
        await facts.until(Resumed)
        await facts.settled("handled", count=250)
        await until_ready(worker)

    assert "claim store: " in away[0]
    assert set(runs.values()) == {1}
    assert not facts.of(Settled, lambda fact: fact.outcome == "dead_lettered" or fact.attempt > 1)
    given_back = Counter(fact.metadata.event_id for fact in facts.of(Settled, lambda f: f.outcome == "given_back"))
    assert max(given_back.values(), default=0) <= 1


async def test_a_handler_that_processes_goes_on_without_redis(breakable: Settings, redis_node: Node) -> None:
    facts = Facts()
    worker = a_worker(breakable, facts)

    @worker.handler(Paid, on_outage="process")
    async def handle(event: Paid) -> None: ...

    async with running(worker):
        await asyncio.to_thread(redis_node.kill)
        await publish_all(breakable, [Paid(order="o-1")])
        [fact] = await facts.settled("handled")
        ready = worker.health().ready

    assert (fact.claim, ready) == ("unprotected", True)


async def test_out_of_memory_claims_wait_and_completions_go_through(breakable: Settings, redis_node: Node) -> None:
    facts, began, go = Facts(), asyncio.Event(), asyncio.Event()
    worker = a_worker(breakable, facts)

    @worker.handler(Paid)
    async def handle(event: Paid) -> None:
        if event.order == "early":
            began.set()
            await go.wait()

    async with running(worker):
        await publish_all(breakable, [Paid(order="early")])
        await began.wait()
        try:
            await asyncio.to_thread(redis_node.ctl, "config", "set", "maxmemory", "1")
            await publish_all(breakable, [Paid(order="late")])
            [paused] = await facts.until(Paused)
            go.set()
            [early] = await facts.settled("handled")
        finally:
            await asyncio.to_thread(redis_node.ctl, "config", "set", "maxmemory", "0")
        await facts.settled("handled", count=2)

    assert "out of memory" in paused.error
    assert early.completion == "recorded"


async def test_a_flush_is_told(breakable: Settings, redis_node: Node) -> None:
    facts = Facts()
    worker = a_worker(with_claims(breakable, lease=0.6), facts)

    @worker.handler(Paid)
    async def handle(event: Paid) -> None: ...

    async with running(worker):
        await asyncio.to_thread(redis_node.ctl, "flushall")
        await facts.until(ClaimsLost)


async def test_a_flush_that_a_completion_finds_is_repaired_before_the_next_heartbeat(
    breakable: Settings, redis_node: Node
) -> None:
    facts, began, go = Facts(), asyncio.Event(), asyncio.Event()
    worker = a_worker(with_claims(breakable, lease=150.0), facts)  # a heartbeat every 50 s

    @worker.handler(Paid)
    async def handle(event: Paid) -> None:
        began.set()
        await go.wait()

    async with running(worker):
        await publish_all(breakable, [Paid(order="o-1")])
        await began.wait()
        await asyncio.to_thread(redis_node.ctl, "flushall")
        go.set()
        [fact] = await facts.settled("handled")
        await facts.until(ClaimsLost)  # within 45 s, or the test fails

    assert fact.completion == "absent"


async def test_what_endangers_the_claims_is_told_at_the_start(breakable: Settings, redis_node: Node) -> None:
    facts = Facts()
    worker = a_worker(with_claims(breakable, ttl=100.0), facts)

    @worker.handler(Paid, retry=Retry(attempts=9, backoff=fixed(60)))
    async def handle(event: Paid) -> None: ...

    for option, value in (("maxmemory-policy", "volatile-lru"), ("appendonly", "no")):
        await asyncio.to_thread(redis_node.ctl, "config", "set", option, value)
    try:
        async with running(worker):
            told = " ".join(fact.finding for fact in facts.of(ClaimsEndangered))
    finally:
        for option, value in (("maxmemory-policy", "noeviction"), ("appendonly", "yes")):
            await asyncio.to_thread(redis_node.ctl, "config", "set", option, value)

    assert all(part in told for part in ("volatile-lru", "nothing on disk", "HOLDFAST_IDEMPOTENCY__TTL=100"))


async def test_keys_by_field_and_by_function_and_another_payload_under_one_key(claiming: Settings) -> None:
    facts, handled = Facts(), Counter[str]()
    worker = a_worker(claiming, facts)

    @worker.handler(Paid, key="order", name="field")
    async def by_field(event: Paid) -> None:
        handled["field"] += 1

    @worker.handler(Paid, key=lambda event: event.order[0], name="function")
    async def by_function(event: Paid) -> None:
        handled["function"] += 1

    @worker.handler(Paid, idempotent=False, name="never")
    async def never(event: Paid) -> None:
        handled["never"] += 1

    async with running(worker):
        await publish_all(claiming, [Paid(order="o-1")])
        await facts.settled("handled", count=3)
        await publish_all(claiming, [Paid(order="o-1")])
        await facts.settled("duplicate", count=2)
        await publish_all(claiming, [Paid(order="o-2")])
        [mismatch] = await facts.settled("dead_lettered")
        await facts.settled("handled", count=6)

    assert handled == {"field": 2, "function": 1, "never": 3}
    assert (mismatch.handler, mismatch.reason) == ("function", "fingerprint-mismatch")


async def test_messages_without_ids_are_each_handled_and_counted_and_that_is_told_once(claiming: Settings) -> None:
    facts = Facts()
    worker = a_worker(claiming, facts)

    @worker.handler("foreign.paid")
    async def handle(event: dict[str, Any]) -> None: ...

    async with running(worker):
        with pika.BlockingConnection(pika.URLParameters(claiming.broker.url.get_secret_value())) as connection:
            channel = connection.channel()
            for _ in range(2):
                channel.basic_publish(claiming.broker.exchange, "foreign.paid", b'{"a": 1}')
        handled = await facts.settled("handled", count=2)

    assert {fact.claim for fact in handled} == {None}
    assert (len(facts.of(MissingId)), len(facts.of(IdGuessed))) == (1, 2)


async def test_a_long_handler_costs_no_renewals_of_its_own(claiming: Settings) -> None:
    facts, go = Facts(), asyncio.Event()
    worker = a_worker(with_claims(claiming, lease=0.6), facts)
    lost: list[bool] = []

    @worker.handler(Paid)
    async def handle(event: Paid, ctx: Context) -> None:
        await go.wait()
        lost.append(ctx.lease_lost)

    async with running(worker):
        await publish_all(claiming, [Paid(order="o-1")])
        asyncio.get_running_loop().call_later(2.0, go.set)  # more than three leases
        [fact] = await facts.settled("handled")

    assert (lost, fact.completion) == ([False], "recorded")
    assert not facts.of(CrashSuspected)


def test_the_worker_takes_no_key_it_cannot_find() -> None:
    worker = Worker("w")

    with pytest.raises(Exception, match="has no field 'nonsense' for key="):

        @worker.handler(Paid, key="nonsense")
        async def handle(event: Paid) -> None: ...
