"""Retries come back when the policy says, and none waits for another."""

import asyncio
import itertools
import re
from datetime import datetime

import pytest
from breaking import purge_delays
from pages import ROOT
from running import a_broker, a_worker, depth, publish_all, running, take
from waiting import Facts

from holdfast import Context, Event, Publisher, Retry, Settings, exponential
from holdfast.broker import ladder
from holdfast.events import Message, uuid7
from holdfast.events import headers as h
from holdfast.telemetry import Settled
from holdfast.testing.servers import Node

# The ladder rounds a delay down to its unit; a busy machine makes anything late, so no tight bound is set on that.
EARLY = ladder.UNIT
LATE = 10.0


class Paid(Event, type="paid"):
    order: str = "o-1"


async def test_the_delays_a_handler_sees_are_those_of_its_policy(settings: Settings) -> None:
    facts, times = Facts(), []
    worker = a_worker(settings, facts)

    @worker.handler(Paid, retry=Retry(attempts=5, backoff=exponential(0.3, factor=1.9, jitter=False)))
    async def handle(event: Paid, ctx: Context) -> None:
        times.append(asyncio.get_running_loop().time())
        if ctx.attempt < 5:
            raise OSError("not yet")

    async with running(worker):
        await publish_all(settings, [Paid()])
        await facts.settled("handled")

    wanted = [0.3 * 1.9**n for n in range(4)]
    seen = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert [fact.delay for fact in facts.of(Settled) if fact.outcome == "postponed"] == pytest.approx(wanted)
    assert all(-EARLY < is_ - should < LATE for is_, should in zip(seen, wanted, strict=True)), (seen, wanted)


async def test_a_message_that_waits_ten_minutes_does_not_hold_back_one_that_waits_a_second(settings: Settings) -> None:
    facts, loop = Facts(), asyncio.get_running_loop()
    worker, times = a_worker(settings, facts), {}

    @worker.handler(Paid)
    async def handle(event: Paid) -> None:
        times[event.order] = loop.time()

    async with running(worker), Publisher(settings) as publisher:
        await publisher.publish(Paid(order="long"), delay=600)
        started = loop.time()
        await publisher.publish(Paid(order="short"), delay=1.0)
        await facts.settled("handled")

    await purge_delays(settings)
    assert list(times) == ["short"] and -EARLY < times["short"] - started - 1.0 < LATE


@pytest.mark.parametrize("queue_type", ["quorum", "classic"])
async def test_copies_carry_the_history_and_nothing_of_the_brokers_own(settings: Settings, queue_type: str) -> None:
    facts = Facts()
    broker_settings = settings.broker.model_copy(update={"queue_type": queue_type})
    settings = settings.model_copy(update={"broker": broker_settings})
    worker, seen = a_worker(settings, facts), []

    @worker.handler("paid", retry=Retry(attempts=3, backoff=lambda attempt: 0.1))
    async def handle(event: bytes, ctx: Context) -> None:
        seen.append((ctx.attempt, ctx.event_id, ctx.metadata.time))
        raise OSError("again")

    forged = {
        "x-death": [{"queue": f"{worker.name}.handle", "count": 3, "reason": "expired"}],
        "x-first-death-queue": "elsewhere",
        "CC": [f"{worker.name}.handle"],
        "mine": {"nested": [1, "two", None]},
    }
    async with running(worker), a_broker(settings) as broker:
        await broker.publish(
            Message(b"{}", settings.broker.exchange, "paid", {"mine": forged["mine"]}, message_id="foreign-1"),
            timeout=10,
        )
        await facts.settled("dead_lettered")
        [letter] = await take(broker, f"{worker.name}.handle.dead", 1)
        await broker.publish(
            Message(b"{}", "", f"{worker.name}.handle", forged, message_id=uuid7(), type="paid"), timeout=10
        )
        await facts.settled("dead_lettered", count=2)
        [second] = await take(broker, f"{worker.name}.handle.dead", 1)

    assert [attempt for attempt, _, _ in seen[:3]] == [1, 2, 3]
    assert {event_id for _, event_id, _ in seen[:3]} == {"foreign-1"}
    assert letter.headers["mine"] == forged["mine"] == second.headers["mine"]
    assert not [
        name for letter_ in (letter, second) for name in letter_.headers if name.startswith("x-") or name == "CC"
    ]


async def test_attempts_and_the_time_of_the_first_failure_survive_a_restart_of_the_worker(settings: Settings) -> None:
    first_run, second_run = Facts(), Facts()

    def build(facts: Facts) -> object:
        worker = a_worker(settings, facts)

        @worker.handler(Paid, retry=Retry(attempts=2, backoff=lambda attempt: 1.5))
        async def handle(event: Paid) -> None:
            raise OSError("down")

        return worker

    async with running(build(first_run)):  # type: ignore[arg-type]
        await publish_all(settings, [Paid()])
        [postponed] = await first_run.settled("postponed")
    async with running(build(second_run)):  # type: ignore[arg-type]
        [dead] = await second_run.settled("dead_lettered")
        async with a_broker(settings) as broker:
            [letter] = await take(broker, f"{settings.broker.exchange}.w.handle.dead", 1)

    assert (postponed.attempt, dead.attempt) == (1, 2)
    waited = datetime.fromisoformat(letter.headers[h.FAILED_AT]) - datetime.fromisoformat(
        letter.headers[h.FIRST_FAILED_AT]
    )
    assert waited.total_seconds() >= 1.4


async def test_a_message_with_headers_near_the_frame_limit_is_retried_and_dead_lettered(settings: Settings) -> None:
    facts = Facts()
    worker = a_worker(settings, facts)

    @worker.handler("paid", retry=Retry(attempts=2, backoff=lambda attempt: 0.1))
    async def handle(event: bytes) -> None:
        raise RuntimeError("x" * 100_000)

    async with running(worker), a_broker(settings) as broker:
        huge = {"small": "kept", "middle": "m" * 20_000, "large": "l" * 104_000}
        await broker.publish(Message(b"{}", settings.broker.exchange, "paid", huge, message_id=uuid7()), timeout=10)
        await facts.settled("dead_lettered")
        [letter] = await take(broker, f"{worker.name}.handle.dead", 1)

    assert letter.headers["small"] == "kept" and len(letter.headers["middle"]) == 20_000
    assert "large" not in letter.headers and "'large'" in letter.headers[h.NOTE]
    assert not [fact for fact in facts.all if type(fact).__name__ == "Disconnected"]


async def test_a_worker_that_is_gone_leaves_its_retries_waiting_for_it(settings: Settings) -> None:
    facts = Facts()
    worker = a_worker(settings, facts)

    @worker.handler(Paid, retry=Retry(backoff=lambda attempt: 0.2))
    async def handle(event: Paid) -> None:
        raise OSError("down")

    async with running(worker):
        await publish_all(settings, [Paid()])
        await facts.settled("postponed")

    async with a_broker(settings) as broker:
        [message] = await take(broker, f"{worker.name}.handle", 1)
    assert message.headers[h.ATTEMPT] == 2
    assert await depth(settings, f"{worker.name}.handle") == 0


def test_the_setting_of_the_broker_that_the_page_advises_is_one(rabbitmq_node: Node) -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    [advised] = re.findall(r"^(\[\{rabbit, .*\])\.$", page, re.MULTILINE)

    asked = f"[{{rabbit, [{{Name, 10000}}]}}] = {advised}, application:get_env(rabbit, Name)."

    assert "{ok,180000}" in rabbitmq_node.ctl("eval", asked).replace(" ", "")  # it is known, and this is its default
