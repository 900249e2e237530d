"""The causes and effects of an event with the outcome of each listener: on the command line and on the page."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from browsing import a_visitor
from commands import environment, holdfast
from keeping import KeptFile
from morgue import a_desk
from rabbits import Rabbit
from rights import a_virtual_host
from running import a_broker, running, settings_for
from waiting import Facts

from holdfast import Context, Event, Reject, Settings, Worker
from holdfast.journal import Evidence, outcomes_of
from holdfast.sql import Database


class Placed(Event, type="why.placed", key="order"):
    order: str


class Paid(Event, type="why.paid", key="order"):
    order: str


class Shipped(Event, type="why.shipped", key="order"):
    order: str


@dataclass
class Shop:
    """A journal of what happened to one order: placed, paid by one listener, refused by a second, seen by a third."""

    settings: Settings
    kept: KeptFile
    first: str
    env: dict[str, str]


def a_crew(settings: Settings, database: Database[Any], facts: Facts) -> Worker:
    worker = Worker("shop", settings=settings, listeners=[facts.record])

    @worker.handler(Placed, within=database)
    def pay(event: Placed, ctx: Context, connection: Any) -> None:
        ctx.publish(Paid(order=event.order))

    @worker.handler(Placed)
    async def refuse(event: Placed) -> None:
        raise Reject("not here")

    @worker.handler(Placed)
    async def claim(event: Placed) -> None: ...

    @worker.handler(Placed, Paid, idempotent=False)
    async def watch(event: Event) -> None: ...

    return worker


@pytest.fixture
async def shop(rabbit: Rabbit, redis_url: str, unique: str, tmp_path: Path) -> AsyncIterator[Shop]:
    facts = Facts()
    with a_virtual_host(rabbit, unique) as host:
        plain = settings_for(host.url(), "events", redis_url, prefix=unique)
        sql: Any = plain.sql.model_copy(update={"keep": float("inf"), "poll": 0.05})
        url: Any = plain.broker.model_validate(
            plain.broker.model_dump() | {"management_url": host.management_url("watch")}
        )
        settings = plain.model_copy(update={"sql": sql, "broker": url})
        async with a_broker(settings) as broker:
            kept = KeptFile(tmp_path / "shop.db", settings, broker)
            worker = a_crew(settings, kept.database, facts)
            await broker.declare(worker.topology())
            [sent] = await asyncio.to_thread(kept.publish, Placed(order="o-1"))
            async with running(worker):
                await facts.settled("handled", count=4)
                await facts.settled("dead_lettered")
        env = environment(
            HOLDFAST_BROKER__URL=host.url(), HOLDFAST_BROKER__MANAGEMENT_URL=host.management_url("watch"),
            HOLDFAST_IDEMPOTENCY__URL=redis_url, HOLDFAST_IDEMPOTENCY__PREFIX=unique,
            HOLDFAST_SQL__URL=f"sqlite:///{kept.path}", HOLDFAST_SQL__KEEP="forever",
            HOLDFAST_DEAD_LETTERS__FOLDER=str(tmp_path / "tools"),
        )  # fmt: skip
        yield Shop(settings, kept, sent.event_id, env)


OUTCOMES = {
    "why.placed": {
        ("shop.claim", "handled", "its claim"),
        ("shop.pay", "handled", "its row in the inbox"),
        ("shop.refuse", "dead-lettered", "its dead letter: refused"),
        ("shop.watch", "unknown", "no trace of it"),
    },
    "why.paid": {("shop.watch", "unknown", "no trace of it")},
}


async def test_each_listener_of_each_event_has_its_outcome(shop: Shop, tmp_path: Path) -> None:
    async with a_desk(shop.settings, tmp_path / "desk") as desk:
        evidence = Evidence(shop.kept.database, shop.settings, desk)
        events = await evidence.family(shop.first)
        traces = await evidence.traces(events)

    ended = outcomes_of(events, traces)
    assert traces.unread == ()
    assert {
        event.metadata.event_type: {(o.queue, o.state, o.by) for o in ended[event.event_id]} for event in events
    } == OUTCOMES


async def test_an_event_that_no_relay_has_sent_waits_for_its_listeners(shop: Shop, tmp_path: Path) -> None:
    [late] = await asyncio.to_thread(shop.kept.publish, Placed(order="o-2"))
    await shop.kept.ask(
        "insert into holdfast_positions (position, seq) select 99, seq from holdfast_events "
        f"where event_id = '{late.event_id}' returning 1"
    )
    await shop.kept.ask(
        "insert into holdfast_unsent (seq, position, shard) select seq, 99, shard from holdfast_events "
        f"where event_id = '{late.event_id}' returning 1"
    )

    async with a_desk(shop.settings, tmp_path / "desk") as desk:
        evidence = Evidence(shop.kept.database, shop.settings, desk)
        events = await evidence.family(late.event_id)
        ended = outcomes_of(events, await evidence.traces(events))

    assert {outcome.state for outcome in ended[late.event_id]} == {"waiting"}


async def test_the_command_prints_the_tree_with_the_outcomes(shop: Shop, tmp_path: Path) -> None:
    def run(*more: str, **variables: str) -> Any:
        return holdfast("journal", "why", shop.first, *more, folder=tmp_path, env=shop.env | variables)

    printed = await asyncio.to_thread(run)
    nobody = await asyncio.to_thread(
        run, HOLDFAST_BROKER__URL="amqp://127.0.0.1:1/", HOLDFAST_IDEMPOTENCY__URL="redis://127.0.0.1:1/0"
    )

    assert (printed.returncode, printed.stderr) == (0, "")
    lines = [line.strip() for line in printed.stdout.splitlines()]
    assert "* shop.refuse: dead-lettered (its dead letter: refused)" in lines
    assert "* shop.watch: unknown (no trace of it)" in lines
    assert nobody.returncode == 0, nobody.stderr
    assert "* shop.pay: handled (its row in the inbox)" in nobody.stdout
    assert "not looked at: dead letters and bindings (" in nobody.stderr
    assert "not looked at: claims (" in nobody.stderr


async def test_the_page_shows_the_tree_and_leads_to_the_dead_letters(shop: Shop, tmp_path: Path) -> None:
    async with a_desk(shop.settings, tmp_path / "desk") as desk:
        evidence = Evidence(shop.kept.database, shop.settings, desk)
        async with a_visitor(desk, evidence=evidence) as visitor:
            asked = (await visitor.get("/causes")).text
            shown = (await visitor.get(f"/causes?event={shop.first}")).text
            missing = await visitor.get("/causes?event=%3Cnobody%3E")
            letters = (await visitor.get(f"/queues/shop.refuse.dead?id={shop.first}")).text
        async with a_visitor(desk) as visitor:
            without = await visitor.get("/causes")

    assert 'name="event"' in asked and 'href="/causes" aria-current="page"' in asked
    assert "why.placed" in shown and "why.paid" in shown and 'aria-current="true"' in shown
    assert f'href="/queues/shop.refuse.dead?id={shop.first}"' in shown
    assert shown.count("no trace of it") == 2
    assert (missing.status_code, "&lt;nobody&gt;" in missing.text) == (404, True)
    assert "refused" in letters
    assert without.status_code == 404 and "HOLDFAST_SQL__KEEP" in without.text
