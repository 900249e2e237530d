"""What an operator sees of a worker: log, metrics and traces that agree, probes that tell the truth and recover."""

import asyncio
import json
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from io import StringIO
from typing import Any

import pytest
import structlog
from breaking import delete, through, with_worker
from prometheus_client import CollectorRegistry
from proxy import proxy_to
from running import a_broker, a_worker, publish_all, running, settings_for, until_ready
from scraping import Figures, Site, figure, site_of, total
from tracing import Spans, recorded_spans
from waiting import Facts, eventually

from holdfast import Context, Event, Publisher, Reject, Retry, RetryLater, Settings, Unroutable, Worker, fixed
from holdfast.config import LogSettings
from holdfast.events import Message
from holdfast.telemetry import Draining, FactLog, LoopBlocked, Metrics, Settled, configure_logging, fan_out
from holdfast.testing.servers import Node

SOON = fixed(0.1, jitter=False)
RECOVERY = 5.0
"""Seconds within which a worker is ready again once what it missed is back."""


class Paid(Event, type="paid"):
    order: str
    does: str = "return"


class Receipt(Event, type="receipt"):
    order: str


@pytest.fixture
def log() -> Any:
    """Every line of the log, as `holdfast run` writes it."""
    stream, root = StringIO(), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    configure_logging(LogSettings(format="json", level="DEBUG"), stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.fixture
def spans() -> Iterator[Spans]:
    with recorded_spans() as spans:
        yield spans


def a_shop(settings: Settings, facts: Facts) -> tuple[Worker, asyncio.Event]:
    """A worker that can bring about every outcome."""
    worker, go = a_worker(settings, facts), asyncio.Event()

    @worker.handler(Paid, retry=Retry(attempts=2, backoff=SOON), timeout=30)
    async def handle(event: Paid, ctx: Context) -> None:
        logging.getLogger("shop").debug("handling %s", event.order)
        await ctx.publish(Receipt(order=event.order))
        match event.does:
            case "fail":
                raise OSError("never works")
            case "fail once" if ctx.attempt == 1:
                raise RetryLater(after=0.1)
            case "reject":
                raise Reject("not ours")
            case "hang":
                await go.wait()

    @worker.handler(Receipt)
    def file(event: Receipt) -> None:
        logging.getLogger("shop").debug("filing %s", event.order)

    return worker, go


async def in_flight(site: Site) -> float:
    return total(await site.figures(), "holdfast_in_flight")


async def ready_again(site: Site) -> float:
    """Seconds until it is ready."""
    began = time.monotonic()
    await eventually(site.is_ready, True)
    return time.monotonic() - began


async def test_log_metrics_and_trace_tell_the_same_story_of_every_outcome(
    settings: Settings, log: Callable[[], list[dict[str, Any]]], spans: Spans
) -> None:
    facts = Facts()
    worker, _ = a_shop(with_worker(settings, grace=0.1), facts)
    orders = [*("return",) * 5, "fail", "fail once", "reject"]

    async with running(worker, http=True):
        site = await site_of(facts)
        await publish_all(settings, [Paid(order=str(n), does=does) for n, does in enumerate(orders)])
        async with Publisher(settings) as publisher:
            first = await publisher.publish(Paid(order="twice"))
            await facts.until(Settled, lambda fact: fact.metadata.event_id == first.event_id)
            await publisher.publish(Paid(order="twice"), metadata=first)
        async with a_broker(settings) as broker:
            await broker.publish(Message(b"{", settings.broker.exchange, "paid", type="paid"), timeout=10)
        await facts.settled("handled", count=2 * 7)
        await facts.settled("dead_lettered", count=3)
        await facts.settled("duplicate")
        await publish_all(settings, [Paid(order="hung", does="hang")])
        await eventually(lambda: in_flight(site), 1)
        figures = await site.figures()
        settled_then = facts.of(Settled)
    settled, lines = facts.of(Settled), log()

    handled = f"{worker.name}.handle"
    assert Counter(fact.outcome for fact in settled) == {
        "handled": 14, "postponed": 2, "dead_lettered": 3, "duplicate": 1, "given_back": 1,
    }  # fmt: skip
    told = [line for line in lines if line["event"] == "delivery.settled"]
    assert [(line["event_id"], line["queue"], line["attempt"], line["outcome"]) for line in told] == [
        (fact.metadata.event_id, fact.queue, fact.attempt, fact.outcome) for fact in settled
    ]
    traced = [dict(span.attributes or {}) for span in spans.all if span.name.startswith("process ")]
    assert [(span["holdfast.event.id"], span["messaging.consumer.group.name"], span["holdfast.attempt"],
             span["holdfast.outcome"]) for span in traced] == [
        (fact.metadata.event_id, fact.queue, fact.attempt, fact.outcome) for fact in settled
    ]  # fmt: skip
    assert counted(figures, "holdfast_messages_settled_total") == Counter(
        (fact.queue, fact.handler, fact.metadata.event_type, fact.outcome) for fact in settled_then
    )
    assert total(figures, "holdfast_messages_received_total") == len(settled_then) + 1
    assert figure(figures, "holdfast_in_flight", queue=handled) == 1
    assert total(figures, "holdfast_handler_seconds_count") == len([f for f in settled_then if f.handler_seconds])
    assert figure(figures, "holdfast_retries_total", queue=handled, handler="handle", error="OSError") == 1
    assert figure(figures, "holdfast_retries_total", queue=handled, handler="handle", error="RetryLater") == 1
    for reason in ("exhausted", "refused", "unreadable"):
        assert figure(figures, "holdfast_dead_letters_total", queue=handled, handler="handle", reason=reason) == 1
    assert figure(figures, "holdfast_published_total", event_type="receipt", outcome="confirmed") == 7
    assert figure(figures, "holdfast_claims_total", queue=handled, result="duplicate") == 1
    assert figure(figures, "holdfast_claims_total", queue=handled, result="acquired") == 11
    assert figure(figures, "holdfast_completions_total", queue=handled, result="recorded") == 7
    ours = [line for line in lines if line.get("logger") == "shop"]
    assert len(ours) == 12 + 7 and all(line["event_id"] and line["queue"] and line["attempt"] for line in ours)


def counted(figures: Figures, name: str) -> Counter[tuple[str, ...]]:
    order = ("queue", "handler", "event_type", "outcome")
    return Counter(
        {
            tuple(dict(labels)[label] for label in order): int(value)
            for (named, labels), value in figures.items()
            if named == name
        }
    )


async def test_a_scrape_under_load_says_no_more_than_happened_and_the_last_one_all(
    settings: Settings,
) -> None:
    facts, count = Facts(), 2_000
    worker = a_worker(settings, facts)

    @worker.handler(Paid)
    async def handle(event: Paid) -> None:
        pass

    seen: list[float] = []
    async with running(worker, http=True):
        site = await site_of(facts)
        publishing = asyncio.create_task(publish_all(settings, [Paid(order=str(n)) for n in range(count)]))
        while len(facts.of(Settled)) < count:
            before = len(facts.of(Settled))
            figures = await site.figures()
            seen.append(total(figures, "holdfast_messages_settled_total"))
            assert before <= seen[-1] <= len(facts.of(Settled))
        await publishing
        figures = await site.figures()

    assert seen == sorted(seen)
    for name in (
        "holdfast_messages_received_total",
        "holdfast_messages_settled_total",
        "holdfast_handler_seconds_count",
    ):
        assert total(figures, name) == count, name
    assert total(figures, "holdfast_in_flight") == 0


async def test_it_is_not_ready_while_the_broker_is_away_and_soon_after_it_is_back(settings: Settings) -> None:
    facts = Facts()
    async with proxy_to(settings.broker.url.get_secret_value()) as proxy:
        worker, _ = a_shop(through(proxy, settings), facts)
        async with running(worker, http=True):
            site = await site_of(facts)
            ready = await site.ready()
            gone = {"connection to consume", f"consumer of {worker.name}.handle"}

            async def are_missing() -> bool:
                return gone <= set((await site.ready())[1]["missing"])

            await proxy.refuse()
            proxy.cut()
            await eventually(are_missing)
            status, away = await site.ready()
            live = await site.is_live()
            figures = await site.figures()
            await proxy.accept()
            took = await ready_again(site)

    assert ready == (200, {"ready": True, "missing": []})
    assert (status, away["ready"], live) == (503, False, True)
    assert total(figures, "holdfast_broker_connected") < 2
    assert took < RECOVERY


async def test_it_is_ready_soon_after_a_broker_that_was_restarted_answers(rabbitmq_node: Node, unique: str) -> None:
    facts = Facts()
    worker, _ = a_shop(settings_for(rabbitmq_node.url, unique), facts)

    async with running(worker, http=True):
        site = await site_of(facts)
        await asyncio.to_thread(rabbitmq_node.stop)
        await eventually(site.is_ready, False)
        live = await site.is_live()
        await asyncio.to_thread(rabbitmq_node.start)
        took = await ready_again(site)
        await publish_all(worker.settings, [Paid(order="o-1")])
        await facts.settled("handled", count=2)
        figures = await site.figures()

    assert live
    assert took < RECOVERY
    for role in ("consume", "publish"):
        assert figure(figures, "holdfast_broker_connected", role=role) == 1
        assert (figure(figures, "holdfast_broker_reconnects_total", role=role) or 0) >= 1


async def test_it_is_not_ready_while_a_queue_is_gone_and_ready_once_it_is_restored(settings: Settings) -> None:
    facts = Facts()
    worker, _ = a_shop(settings, facts)
    queue = f"{worker.name}.handle"

    async with running(worker, http=True):
        site = await site_of(facts)
        was_away = asyncio.create_task(eventually(site.is_ready, False, every=0.002))
        await delete(settings, queues=(queue,))
        await was_away
        took = await ready_again(site)
        figures = await site.figures()

    assert took < RECOVERY
    assert figure(figures, "holdfast_consumer_attached", queue=queue) == 1


async def test_it_is_not_ready_while_redis_is_away_and_soon_after_it_is_back(
    rabbitmq_url: str, redis_node: Node, unique: str
) -> None:
    facts = Facts()
    worker, _ = a_shop(settings_for(rabbitmq_url, unique, redis_node.url, timeout=0.3), facts)

    async with running(worker, http=True):
        site = await site_of(facts)
        await asyncio.to_thread(redis_node.kill)
        await publish_all(worker.settings, [Paid(order="o-1")])  # the outage is noticed when a claim is asked for
        await eventually(site.is_ready, False)
        status, away = await site.ready()
        live = await site.is_live()
        await eventually(lambda: paused(site), 2.0)
        await asyncio.to_thread(redis_node.start)
        took = await ready_again(site)
        await facts.settled("handled", count=2)
        await eventually(lambda: paused(site), 0.0)

    assert (status, live) == (503, True)
    assert away["missing"][0].startswith("claim store: ")
    assert took < RECOVERY


async def test_a_redis_that_goes_while_no_event_comes_is_noticed_and_so_is_its_return(
    rabbitmq_url: str, redis_node: Node, unique: str
) -> None:
    facts = Facts()
    worker, _ = a_shop(settings_for(rabbitmq_url, unique, redis_node.url, timeout=0.3, lease=1.5), facts)

    async with running(worker, http=True):
        site = await site_of(facts)
        await asyncio.to_thread(redis_node.kill)
        await eventually(site.is_ready, False)
        _, away = await site.ready()
        live = await site.is_live()
        await asyncio.to_thread(redis_node.start)
        took = await ready_again(site)

    assert live
    assert away["missing"][0].startswith("claim store: ")
    assert took < RECOVERY


async def paused(site: Site) -> float:
    return total(await site.figures(), "holdfast_paused", reason="claim store")


async def test_while_it_drains_it_is_live_not_ready_and_still_says_what_it_does(settings: Settings) -> None:
    facts = Facts()
    worker, go = a_shop(settings, facts)

    async with running(worker, http=True):
        site = await site_of(facts)
        await publish_all(settings, [Paid(order="o-1", does="hang")])
        await eventually(lambda: in_flight(site), 1)
        worker.stop()
        await facts.until(Draining)
        ready, live, figures = await site.ready(), await site.is_live(), await site.figures()
        go.set()
        await facts.settled("handled")

    assert (ready, live) == ((503, {"ready": False, "missing": ["draining"]}), True)
    assert figure(figures, "holdfast_in_flight", queue=f"{worker.name}.handle") == 1
    assert total(figures, "holdfast_consumer_attached") == 0


async def test_a_blocked_loop_fails_the_liveness_probe_and_the_log_names_the_frame(
    settings: Settings,
) -> None:
    facts, answers = Facts(), []
    worker = a_worker(with_worker(settings, block_limit=0.2, live_limit=0.5), facts)

    @worker.handler(Paid)
    async def handle(event: Paid) -> None:
        ask(asyncio.run, site.live, answers)

    async with running(worker, http=True):
        site = await site_of(facts)
        await publish_all(settings, [Paid(order="o-1")])
        [settled] = await facts.settled("handled")
        [blocked] = await facts.until(LoopBlocked)
        live_again = await site.live()

    assert answers[-1][0] == 503 and answers[-1][1]["live"] is False and answers[-1][1]["still"] >= 0.5
    assert "in ask" in blocked.stack
    assert (blocked.handler, blocked.event_id) == ("handle", settled.metadata.event_id)
    assert live_again[0] == 200


def ask(run: Callable[[Any], Any], probe: Callable[[], Awaitable[Any]], answers: list[Any]) -> None:
    """Block the loop until the probe has failed."""
    import threading

    def until_it_fails() -> None:
        while not answers or answers[-1][0] == 200:
            answers.append(run(probe()))

    asking = threading.Thread(target=until_it_fails)
    asking.start()
    asking.join(20)


async def test_what_a_publisher_of_another_program_sends_can_be_counted_too(settings: Settings) -> None:
    metrics = Metrics()

    async with Publisher(settings, emit=fan_out([FactLog(), metrics])) as publisher:
        with pytest.raises(Unroutable):
            await publisher.publish(Paid(order="nobody listens"))

    registry = CollectorRegistry()
    registry.register(metrics)
    labels = {"event_type": "paid", "outcome": "unroutable"}
    assert registry.get_sample_value("holdfast_published_total", labels) == 1
    assert registry.get_sample_value("holdfast_broker_connected", {"role": "publish"}) == 1


async def test_before_it_consumes_it_says_that_it_is_starting(settings: Settings) -> None:
    facts, go = Facts(), asyncio.Event()

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        await go.wait()
        yield

    worker = a_worker(settings, facts, lifespan=lifespan)

    @worker.handler(Paid)
    async def handle(event: Paid) -> None: ...

    run = asyncio.create_task(worker.run(http=True))
    site = await site_of(facts)
    ready, live = await site.ready(), await site.is_live()
    go.set()
    await eventually(site.is_ready, True)
    worker.stop()
    await run

    assert (ready[0], live) == (503, True)
    assert "starting" in ready[1]["missing"]


async def test_without_http_nothing_is_served_and_nothing_is_counted(settings: Settings) -> None:
    facts = Facts()
    worker, _ = a_shop(settings, facts)

    async with running(worker):
        await until_ready(worker)

    assert not [fact for fact in facts.all if type(fact).__name__ == "Serving"]
