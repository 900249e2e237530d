"""How databases carry out what is done again and again: what waits or stays is not read each time."""

import json
import re
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from typing import Any

import pytest

from holdfast.sagas.upkeep import Upkeep
from holdfast.sql import Database, Kept, Statements, Steps, ddl, statements_of


@pytest.fixture
async def database(request: pytest.FixtureRequest, postgres_url: str, unique: str) -> AsyncIterator[Database[Any]]:
    """A database with Holdfast's tables in a schema of this test's own, of which the planner knows nothing yet. By the
    parameter, they keep their events."""
    opened = Database.of_url(postgres_url)
    for statement in ddl(unique, keeps=getattr(request, "param", False)):
        await opened.run(made(statement))
    yield opened
    await opened.run(made(f"drop schema {unique} cascade"))
    await opened.close()


def made(statement: str, *before: str, params: dict[str, Any] | None = None) -> Steps[list[tuple[Any, ...]]]:
    for each in before:
        yield each, {}
    return (yield statement, params or {})


async def test_a_sweep_of_sagas_reads_the_limits_that_are_over_and_none_that_wait(
    database: Database[Any], unique: str
) -> None:
    statements = database.statements(unique)
    columns = "saga, key, life, version, stage, entered, state, state_version, undo, due_at, began_at, changed_at"
    values = "'order', 'o-' || n, 'life', 1, 'paying', 1, '{}', 1, '[]', now() + make_interval(hours => n), now()"
    rows = f"select {values}, now() from generate_series(-2, 2000) n"
    await database.run(made(f"insert into {statements.table('sagas')} ({columns}) {rows}"))

    statement, params = next(Upkeep(statements, "order").overdue(None, 100))
    [(plan,)] = await database.run(made(f"explain (analyze, format json) {statement}", params=dict(params)))

    assert rows_read_to_lock(json.loads(plan) if isinstance(plan, str) else plan) == 3


async def wait_for_a_relay(database: Database[Any], statements: Statements, count: int) -> None:
    """Write events, and give all shards to the relay `t`."""
    table = statements.table
    columns = "shard, event_id, event_type, version, key, source, time, headers, content_type, body"
    values = "n % 16, 'e-' || n, 'placed', 1, 'k-' || n, 'shop', now(), '{}', 'json', ''"
    leased = "token = 't', lease_until = now() + interval '1 hour'"
    await database.run(made(f"update {table('cursors')} set {leased} where name like 'shard:%'"))
    rows = f"select {values} from generate_series(1, {count}) n"
    await database.run(made(f"insert into {table('events')} ({columns}) {rows}"))
    if isinstance(statements, Kept):
        rows = f"select seq, seq, shard from {table('events')}"
        await database.run(made(f"insert into {table('unsent')} (seq, position, shard) {rows}"))


@pytest.mark.parametrize("database", [False, True], ids=["deletes", "keeps"], indirect=True)
async def test_a_relay_reads_what_it_sends_however_much_waits(
    request: pytest.FixtureRequest, database: Database[Any], unique: str
) -> None:
    keeps = "keeps" in request.node.callspec.id
    statements = database.kept(unique) if keeps else database.statements(unique)
    await wait_for_a_relay(database, statements, 5000)

    wanted = {"token": "t", "ahead": 60.0, "most": 100, "in_hand": "[1, 2, 3]"}
    *before, (statement, params) = statements.reading(wanted)
    dear = "set local jit_above_cost = 0"  # as each plan may look that is made without figures of the tables
    explain = f"explain (analyze, format json) {statement}"
    [(told,)] = await database.run(made(explain, dear, *(each for each, _ in before), params=dict(params)))

    [plan] = json.loads(told) if isinstance(told, str) else told
    assert rows_read_of("events", [plan]) == 103
    assert "JIT" not in plan


@pytest.mark.parametrize("keeps", [False, True])
def test_a_relay_on_sqlite_reads_in_the_order_of_an_index(keeps: bool) -> None:
    statements = Kept("sqlite", "holdfast") if keeps else statements_of("sqlite")
    with closing(sqlite3.connect(":memory:")) as connection:
        for statement in ddl(dialect="sqlite", keeps=keeps):
            connection.execute(statement)
        wanted = {"token": "t", "ahead": 60.0, "most": 100, "in_hand": "[]"}
        [(statement, params)] = statements.reading(wanted)
        plan = connection.execute(f"explain query plan {statement}", params).fetchall()

    assert [step for *_, step in plan if "TEMP B-TREE" in step] == []


async def test_a_relay_takes_no_more_leases_than_it_wants(database: Database[Any], unique: str) -> None:
    """A nested loop is the plan that would choose them anew for each row."""
    take = {"token": "t", "kind": "shard:%", "wanted": 5, "lease": 15}
    nested = [f"set local enable_{way} = off" for way in ("hashjoin", "mergejoin", "hashagg", "sort", "material")]

    taken = await database.run(made(database.statements(unique).take, *nested, params=take))

    assert len(taken) == 5


@pytest.mark.parametrize("what", ["inbox_handled", "sagas_ended"])
async def test_old_rows_are_looked_up_by_an_index(database: Database[Any], unique: str, what: str) -> None:
    statements = database.statements(unique)
    statement, params = old_rows(statements)[what]

    plan = await database.run(made(f"explain {statement}", "set local enable_seqscan = off", params=params))

    text = "\n".join(line for (line,) in plan)
    assert re.search(rf" {what} .*\n +Index Cond: .*_at < ", text)
    assert "Tid Scan" in text


def old_rows(statements: Statements) -> dict[str, tuple[str, dict[str, Any]]]:
    """The statements that delete old rows, by the index that finds these."""
    forget, keep = next(Upkeep(statements, "order").forget(60.0))
    return {"inbox_handled": (statements.sweep, {"ttl": 60.0}), "sagas_ended": (forget, dict(keep))}


def rows_read_of(table: str, plans: list[dict[str, Any]]) -> int:
    """The rows of a table that a plan reads, in all its loops."""
    rows = 0
    for plan in (each.get("Plan", each) for each in plans):
        if plan.get("Relation Name") == table:
            rows += round((plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)) * plan["Actual Loops"])
        rows += rows_read_of(table, plan.get("Plans", []))
    return rows


def rows_read_to_lock(plans: list[dict[str, Any]], is_below: bool = False) -> int:
    """The rows that a plan reads to choose which to lock, in all its loops."""
    rows = 0
    for plan in (each.get("Plan", each) for each in plans):
        below = plan.get("Plans", [])
        if is_below and not below:
            rows += (plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)) * plan["Actual Loops"]
        rows += rows_read_to_lock(below, is_below or plan["Node Type"] == "LockRows")
    return rows
