"""Transactions on RabbitMQ and PostgreSQL: processes and servers die, and each event is accounted for."""

import asyncio
import os
import re
import signal
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from apps import APPS
from commands import Running, environment, holdfast
from running import a_broker, a_worker, publish_all, running, take, until_ready
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from waiting import Facts, eventually

from holdfast import Context, Event, Retry, Settings
from holdfast.broker import Binding, Exchange, Queue, Topology
from holdfast.events import headers
from holdfast.sql import Database, Outbox, ddl
from holdfast.telemetry import Paused, Resumed, Settled
from holdfast.testing.servers import Node

ARROWS = (
    "the effect is written",
    "the events are written",
    "the commit is sent",
    "the transaction is committed",
    "the relay has read",
    "an event is confirmed",
    "the relay notes",
    "the relay has noted",
)
EACH = 20


class Paid(Event, type="ledger.paid", key="account"):
    account: str
    number: int


class Full(Event, type="full", key="key"):
    key: str
    number: int


async def ask(url: str, sql: str) -> list[tuple[Any, ...]]:
    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(sql)]
    finally:
        await connection.close()


async def prepare(url: str, schema: str) -> None:
    """Make the tables of Holdfast, and one of entries."""
    for statement in (*ddl(schema), f"create table {schema}.entries (kind text, number integer)"):
        await ask(url, statement)


@pytest.fixture
async def schema(postgres_url: str, unique: str) -> AsyncIterator[str]:
    """A schema of this test's own, with the tables."""
    await prepare(postgres_url, unique)
    yield unique
    await ask(postgres_url, f"drop schema {unique} cascade")


@pytest.mark.parametrize("arrow", ARROWS)
async def test_a_worker_killed_at_an_arrow_leaves_effect_inbox_and_events_in_agreement(
    arrow: str, schema: str, postgres_url: str, settings: Settings, tmp_path: Path
) -> None:
    env = environment(
        HOLDFAST_BROKER__URL=settings.broker.url.get_secret_value(),
        HOLDFAST_BROKER__EXCHANGE=settings.broker.exchange,
        HOLDFAST_BROKER__MAX_DELAY="3600",
        HOLDFAST_LOG__FORMAT="json",
        HOLDFAST_SQL__SCHEMA=schema,
        HOLDFAST_SQL__LEASE="1",
        LEDGER_URL=postgres_url.replace("postgresql:", "postgresql+asyncpg:"),
        DIE_AT=arrow,
        DIED=str(tmp_path / "died"),
    )
    entries = f"select kind, number, count(*) from {schema}.entries group by 1, 2"
    each_once = {(kind, number, 1) for kind in ("booked", "seen") for number in range(EACH)}

    with Running("run", "ledger:worker", folder=APPS, env=env) as first:
        first.until(lambda log: "worker.started" in log)
        await publish_all(settings, [Paid(account=f"a-{n % 3}", number=n) for n in range(EACH)])
        assert first.process.wait(60) == -signal.SIGKILL, first.log
    with Running("run", "ledger:worker", folder=APPS, env=env) as second:
        second.until(lambda log: "worker.started" in log)

        async def all_seen() -> int:
            return len([row for row in await ask(postgres_url, entries) if row[0] == "seen"])

        await eventually(all_seen, EACH)
        await eventually(lambda: ask(postgres_url, f"select count(*) from {schema}.events"), [(0,)])
        assert second.stop() == 0, second.log

    assert set(await ask(postgres_url, entries)) == each_once
    assert await ask(postgres_url, f"select count(*) from {schema}.inbox") == [(2 * EACH,)]


async def test_the_shards_of_a_process_that_died_are_free_before_their_leases_end(
    schema: str, postgres_url: str, settings: Settings
) -> None:
    env = environment(
        HOLDFAST_BROKER__URL=settings.broker.url.get_secret_value(),
        HOLDFAST_BROKER__EXCHANGE=settings.broker.exchange,
        HOLDFAST_BROKER__MAX_DELAY="3600",
        HOLDFAST_IDEMPOTENCY__URL="memory://",
        HOLDFAST_LOG__FORMAT="json",
        HOLDFAST_SQL__SCHEMA=schema,
        HOLDFAST_SQL__LEASE="3000",
        LEDGER_URL=postgres_url.replace("postgresql:", "postgresql+asyncpg:"),
    )
    leased = f"select count(*) from {schema}.cursors where name like 'shard:%' and token is not null"

    with Running("run", "ledger:worker", "--processes", "2", folder=APPS, env=env) as run:
        await eventually(lambda: ask(postgres_url, leased), [(16,)])
        await asyncio.to_thread(run.until, lambda log: log.count("process.started") == 2)
        old = ", ".join(f"'{row[0]}'" for row in await ask(postgres_url, f"select token from {schema}.cursors"))
        for pid in re.findall(r'"pid": ?(\d+)', run.log)[:2]:
            os.kill(int(pid), signal.SIGKILL)
        await eventually(lambda: ask(postgres_url, f"{leased} and token not in ({old})"), [(16,)])
        assert run.stop() == 0, run.log


async def test_a_database_that_is_killed_pauses_the_queue_and_spends_no_attempt(
    postgres_node: Node, settings: Settings, unique: str
) -> None:
    facts, url = Facts(), postgres_node.url
    await prepare(url, unique)
    settings = settings.model_copy(update={"sql": settings.sql.model_copy(update={"schema": unique})})
    engine = create_async_engine(url.replace("postgresql:", "postgresql+asyncpg:"))
    worker = a_worker(settings, facts)

    @worker.handler(Paid, within=Database(async_sessionmaker(engine)), retry=Retry(attempts=1))
    async def book(event: Paid, ctx: Context, session: AsyncSession) -> None:
        await session.execute(text(f"insert into {unique}.entries values ('booked', {event.number})"))

    async with running(worker):
        await publish_all(settings, [Paid(account="a", number=n) for n in range(EACH)])
        await facts.settled("handled")
        postgres_node.kill()
        await publish_all(settings, [Paid(account="a", number=n) for n in range(EACH, 2 * EACH)])
        await facts.until(Paused, lambda fact: fact.reason == "database")
        missing = worker.health().missing
        postgres_node.start()
        await facts.until(Resumed, lambda fact: fact.reason == "database")
        await until_ready(worker)
        query = f"select count(*), count(distinct number) from {unique}.entries"
        await eventually(lambda: ask(url, query), [(2 * EACH, 2 * EACH)])
    await engine.dispose()

    assert any(line.startswith("database: ") for line in missing)
    assert {fact.outcome for fact in facts.of(Settled)} <= {"handled", "duplicate", "given_back"}


async def test_a_full_queue_holds_back_one_key_until_its_event_is_released_or_dropped(
    settings: Settings, unique: str, tmp_path: Path
) -> None:
    exchange, file, archive = settings.broker.exchange, tmp_path / "shop.db", tmp_path / "dropped.jsonl"
    full = Queue("full." + unique, {"x-max-length": 1, "x-overflow": "reject-publish"})
    other = Queue("other." + unique, {"x-queue-type": "quorum"})
    bindings = (Binding(exchange, full.name, "full"), Binding(exchange, other.name, "ledger.paid"))
    env = environment(
        HOLDFAST_BROKER__URL=settings.broker.url.get_secret_value(),
        HOLDFAST_BROKER__EXCHANGE=exchange,
        HOLDFAST_LOG__FORMAT="json",
        HOLDFAST_SQL__URL=f"sqlite:///{file}",
    )

    async with a_broker(settings) as broker:
        await broker.declare(Topology((Exchange(exchange),), (full, other), bindings))
        applied = holdfast("sql", "schema", "--apply", folder=tmp_path, env=env)
        assert "CREATE TABLE holdfast_events" in applied.stdout
        assert applied.stderr.splitlines()[-1].startswith("holdfast: applied to database ")
        assert holdfast("sql", "check", folder=tmp_path, env=env).stdout.startswith("database shop.db: ")
        events = [Full(key="a", number=n) for n in range(4)] + [Paid(account="b", number=n) for n in range(4)]
        outbox = Outbox(settings, source="shop")
        with closing(sqlite3.connect(file)) as connection, connection:
            for event in events:
                outbox.publish(connection, event)

        with Running("relay", folder=tmp_path, env=env) as relay:
            relay.until(lambda log: "outbox.held" in log)
            others = await take(broker, other.name, 4)
            figures = holdfast("outbox", "show", "--json", folder=tmp_path, env=env).stdout
            held = holdfast("outbox", "held", folder=tmp_path, env=env).stdout
            number = held.split()[0]
            released = holdfast("outbox", "release", number, folder=tmp_path, env=env)
            dropped = holdfast("outbox", "drop", number, "--archive", str(archive), folder=tmp_path, env=env)
            firsts = await take(broker, full.name, 3)
            assert relay.stop() == 0, relay.log

    assert [message.headers[headers.EVENT_KEY] for message in others] == ["b"] * 4
    assert '"held": 1' in figures and '"relays": 1' in figures
    assert " key a event " in held
    assert (released.returncode, dropped.returncode) == (0, 0), (released.stderr, dropped.stderr)
    assert archive.read_text().count('"event_type": "full"') == 1
    numbers = [Full.model_validate_json(message.body).number for message in firsts]
    assert numbers == sorted(numbers) and len(numbers) == 3
    assert holdfast("outbox", "release", "1", folder=tmp_path, env=env).stderr.startswith("holdfast: no event with")


def test_the_statements_of_each_dialect_are_printed_without_a_database(tmp_path: Path) -> None:
    for dialect, tables in (("postgresql", 6), ("sqlite", 6), ("mysql", 4)):  # sagas are not kept in MySQL
        printed = holdfast("sql", "schema", "--dialect", dialect, folder=tmp_path, env=environment()).stdout

        assert printed.count("CREATE TABLE") == tables


@pytest.mark.parametrize("command", ["outbox show", "outbox held", "outbox release 1", "sagas list fulfilment"])
def test_a_command_without_holdfasts_tables_says_how_to_make_them(command: str, tmp_path: Path) -> None:
    env = environment(HOLDFAST_SQL__URL=f"sqlite:///{tmp_path / 'empty.db'}")

    ended = holdfast(*command.split(), folder=tmp_path, env=env)

    [line] = ended.stderr.splitlines()
    assert ended.returncode == 1 and line.startswith("holdfast: no such table: holdfast_"), line
    assert line.endswith("make them with `holdfast sql schema --apply`")


def test_a_command_without_a_database_says_which_setting_is_missing(tmp_path: Path) -> None:
    sagas = ["sagas", "list", "fulfilment"]
    for command in (["sql", "check"], ["outbox", "show"], ["outbox", "held", "--json"], ["relay"], sagas):
        ended = holdfast(*command, folder=tmp_path, env=environment(HOLDFAST_BROKER__URL="memory://"))

        assert (ended.returncode, ended.stderr) == (1, "holdfast: HOLDFAST_SQL__URL is not set: which database?\n")
