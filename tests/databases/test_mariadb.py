"""What a MariaDB adds to the contract: real deadlocks, a server that is killed, and the commands."""

from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from string import ascii_lowercase
from urllib.parse import urlsplit

import pymysql
import pytest
from commands import Running, environment, holdfast
from databases import MORE_KINDS, Bank, a_bank
from running import a_broker, a_worker, publish_all, running, take, until_ready
from sqlalchemy.ext.asyncio import create_async_engine
from waiting import Facts, eventually

from holdfast import Context, Event, Retry, Settings
from holdfast.broker import Binding, Exchange, Queue, Topology
from holdfast.sql import Outbox, Row, Steps
from holdfast.telemetry import Paused, Resumed, Settled
from holdfast.testing.servers import Given, Node, Server

KINDS = [pytest.param(kind, id=kind.name) for kind in MORE_KINDS if kind.server == "mariadb"]
ONCE = Retry(attempts=1)


class Paid(Event, type="paid", key="account"):
    account: str


@pytest.fixture
async def bank(request: pytest.FixtureRequest, mariadb_url: str, unique: str, tmp_path: Path) -> AsyncIterator[Bank]:
    async with a_bank(request.param, mariadb_url, unique, tmp_path) as bank:
        yield bank


@pytest.fixture
def settings_of_schema(settings: Settings, unique: str) -> Settings:
    return settings.model_copy(update={"sql": settings.sql.model_copy(update={"schema": unique})})


@pytest.mark.parametrize("bank", KINDS, indirect=True)
async def test_a_handler_that_loses_a_deadlock_runs_again_and_spends_no_attempt(
    bank: Bank, mariadb_url: str, settings_of_schema: Settings
) -> None:
    facts, attempts, server = Facts(), list[int](), urlsplit(mariadb_url)
    await bank.ask(f"alter table {bank.accounts} add primary key (account(20))")
    rows = ", ".join(f"('{letter}', 0)" for letter in ascii_lowercase)
    await bank.ask(f"insert into {bank.accounts} values {rows}")
    another = pymysql.connect(host=server.hostname, port=server.port or 3306, user="root", database="holdfast")
    cursor = another.cursor()
    cursor.execute("set session transaction isolation level read committed")  # no lock on what it does not change
    cursor.execute(f"update {bank.accounts} set cents = 7 where account <> 'a'")  # more rows: it wins

    def cross() -> None:
        cursor.execute(f"update {bank.accounts} set cents = 7 where account = 'a'")
        another.rollback()

    def act(event: Paid, ctx: Context) -> Iterator[str]:
        attempts.append(ctx.attempt)
        yield f"update {bank.accounts} set cents = 1 where account = 'a'"
        if len(attempts) == 1:
            crossing.append(pool.submit(cross))
        yield f"update {bank.accounts} set cents = 1 where account = 'b'"

    worker, crossing = a_worker(settings_of_schema, facts), list[Future[None]]()
    worker.handler(Paid, within=bank.database, retry=ONCE)(bank.handler(act))
    with closing(another), ThreadPoolExecutor(1) as pool:
        async with running(worker):
            await publish_all(settings_of_schema, [Paid(account="a")])
            await facts.until(Settled, lambda fact: fact.outcome == "handled")
        crossing[0].result()

    assert attempts == [1, 1]
    assert await bank.ask(f"select account from {bank.accounts} where cents = 1 order by 1") == [("a",), ("b",)]


@pytest.mark.parametrize("bank", KINDS, indirect=True)
async def test_a_mariadb_that_is_killed_pauses_the_queue_and_spends_no_attempt(
    bank: Bank, mariadb_server: Server, settings_of_schema: Settings
) -> None:
    assert not isinstance(mariadb_server, Given)
    node: Node = mariadb_server
    facts = Facts()

    def act(event: Paid, ctx: Context) -> Iterator[str]:
        yield f"insert into {bank.accounts} values ('{event.account}', 1)"

    worker = a_worker(settings_of_schema, facts)
    worker.handler(Paid, within=bank.database, retry=ONCE)(bank.handler(act))
    async with running(worker):
        await publish_all(settings_of_schema, [Paid(account=f"a-{n}") for n in range(10)])
        await facts.until(Settled, lambda fact: fact.outcome == "handled", count=10)
        node.kill()
        await publish_all(settings_of_schema, [Paid(account=f"b-{n}") for n in range(10)])
        await facts.until(Paused, lambda fact: fact.reason == "database")
        node.start()
        await facts.until(Resumed, lambda fact: fact.reason == "database")
        await until_ready(worker)
        accounts = f"select count(*), count(distinct account) from {bank.accounts}"
        await eventually(lambda: bank.ask(accounts), [(20, 20)])

    assert {fact.outcome for fact in facts.of(Settled)} <= {"handled", "duplicate", "given_back"}


async def test_the_commands_work_on_mariadb(mariadb_url: str, settings: Settings, unique: str, tmp_path: Path) -> None:
    env = environment(
        HOLDFAST_BROKER__URL=settings.broker.url.get_secret_value(),
        HOLDFAST_BROKER__EXCHANGE=settings.broker.exchange,
        HOLDFAST_LOG__FORMAT="json",
        HOLDFAST_SQL__URL=mariadb_url,
        HOLDFAST_SQL__SCHEMA=unique,
    )
    full = Queue("full." + unique, {"x-max-length": 1, "x-overflow": "reject-publish"})
    binding = Binding(settings.broker.exchange, full.name, "paid")
    outbox = Outbox(settings.model_copy(update={"sql": settings.sql.model_copy(update={"schema": unique})}))

    async with a_broker(settings) as broker:
        await broker.declare(Topology((Exchange(settings.broker.exchange),), (full,), (binding,)))
        missing = holdfast("sql", "check", folder=tmp_path, env=env).stderr
        assert "CREATE TABLE" in holdfast("sql", "schema", "--apply", folder=tmp_path, env=env).stdout
        checked = holdfast("sql", "check", folder=tmp_path, env=env).stdout
        await publish(outbox, mariadb_url, [Paid(account="a") for _ in range(4)])
        with Running("relay", folder=tmp_path, env=env) as relay:
            relay.until(lambda log: "outbox.held" in log)
            number = holdfast("outbox", "held", folder=tmp_path, env=env).stdout.split()[0]
            released = holdfast("outbox", "release", number, folder=tmp_path, env=env)
            archive = str(tmp_path / "dropped.jsonl")
            dropped = holdfast("outbox", "drop", number, "--archive", archive, folder=tmp_path, env=env)
            messages = await take(broker, full.name, 3)
            assert relay.stop() == 0, relay.log

    assert "make them by the statements of `holdfast sql schema`" in missing
    assert checked == f"database holdfast: the tables of schema {unique} are as needed\n"
    assert (released.returncode, dropped.returncode) == (0, 0), (released.stderr, dropped.stderr)
    assert len(messages) == 3


async def publish(outbox: Outbox, url: str, events: list[Paid]) -> None:
    engine = create_async_engine(url.replace("mariadb:", "mariadb+asyncmy:"))
    async with engine.begin() as connection:
        for event in events:
            await outbox.publish(connection, event)
    await engine.dispose()


@pytest.mark.parametrize("bank", KINDS[:1], indirect=True)
async def test_a_relay_reads_what_it_sends_however_much_waits(bank: Bank) -> None:
    values = "n % 16, concat('e-', n), 'placed', 1, 'shop', 0, '{}', 'json', ''"
    columns = "shard, event_id, event_type, version, source, time, headers, content_type, body"
    numbers = "with recursive numbers (n) as (select 1 union all select n + 1 from numbers where n < 900)"
    await bank.ask(f"insert into {bank.statements.table('events')} ({columns}) {numbers} select {values} from numbers")
    wanted = {"token": "t", "ahead": 60.0, "most": 100, "in_hand": "[]"}

    def explained() -> Steps[list[Row]]:
        [(statement, params)] = bank.statements.reading(wanted)
        return (yield f"explain {statement}", params)

    plan = await bank.database.run(explained())

    assert "PRIMARY" in {row[5] for row in plan if row[2] == "e"}
    assert [row for row in plan if "filesort" in str(row[-1])] == []
