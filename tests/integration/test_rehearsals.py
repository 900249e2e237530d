"""`holdfast dead check --run`: a handler is tried on letters, once on each, and leaves no trace outside itself."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from apps import copy_app
from commands import environment, holdfast
from running import a_broker
from waiting import LIMIT

from holdfast import Event, Settings
from holdfast.broker import Queue, Topology
from holdfast.events import Message, headers, seal
from holdfast.publisher import message_for
from holdfast.sql import Database, Outgoing, Steps, ddl

SCHEMA = "holdfast"


class Order(Event, type="order", key="order"):
    order: str


@pytest.fixture
def env(settings: Settings, tmp_path: Path, unique: str) -> dict[str, str]:
    copy_app("rehearsed", tmp_path, NAME=unique)
    return environment(
        HOLDFAST_BROKER__URL=settings.broker.url.get_secret_value(),
        HOLDFAST_BROKER__EXCHANGE=settings.broker.exchange,
        HOLDFAST_IDEMPOTENCY__URL="memory://",
        HOLDFAST_DEAD_LETTERS__FOLDER=str(tmp_path / "state"),
    )


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """The database of the handler that has one."""
    with closing(sqlite3.connect(tmp_path / "shop.db", isolation_level=None)) as shop:
        for statement in (*ddl(SCHEMA, dialect="sqlite"), "create table payments (account text)"):
            shop.execute(statement)
        yield shop


async def letters(settings: Settings, unique: str, handler: str, *orders: str, **more: str) -> None:
    """Put letters into the dead-letter queue of a handler."""
    queue = f"{unique}.{handler}.dead"
    async with a_broker(settings) as broker:
        await broker.declare(Topology(queues=(Queue(queue, {"x-queue-type": "quorum"}),)))
        for order in orders:
            made = message_for(seal(Order(order=order), source="shop"), settings, None)
            about = {**made.headers, **more}
            letter = Message(made.body, "", queue, headers=about, type=f"{unique}.order", message_id=made.message_id)
            await broker.publish(letter, timeout=LIMIT)


def run(env: dict[str, str], folder: Path, queue: str, *options: str, code: int = 0) -> Any:
    done = holdfast("dead", "check", queue, "app:worker", *options, "--json", folder=folder, env=env)
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout)


async def test_a_transaction_is_rolled_back_and_what_waits_in_the_database_is_not_sent(
    settings: Settings, unique: str, env: dict[str, str], tmp_path: Path, shop: sqlite3.Connection
) -> None:
    def write() -> Steps[None]:
        statements = Database.sqlite(str(tmp_path / "shop.db")).statements(SCHEMA)
        yield statements.insert([Outgoing(seal(Order(order="waits"), source="shop"))])

    await Database.sqlite(str(tmp_path / "shop.db")).run(write())
    await letters(settings, unique, "pay", "o-1", "o-2")

    ran = [run(env, tmp_path, f"{unique}.pay", "--run")["run"] for _ in range(2)]

    assert ran == [{"handled": 2, "failed": 0, "errors": [], "published": {f"{unique}.paid": 2}}] * 2
    counts = [shop.execute(f"select count(*) from {table}").fetchone()[0] for table in TABLES]
    assert counts == [0, 0, 1]


TABLES = ("payments", f"{SCHEMA}_inbox", f"{SCHEMA}_events")


async def test_letters_of_an_ordered_handler_are_tried(
    settings: Settings, unique: str, env: dict[str, str], tmp_path: Path, shop: sqlite3.Connection
) -> None:
    await letters(settings, unique, "pack", "fails", "o-1", "fails", **{headers.ORDER_KEY: "o-1"})

    ran = run(env, tmp_path, f"{unique}.pack", "--run", code=1)

    assert (ran["readable"], ran["unreadable"]) == (3, 0)
    assert (ran["run"]["handled"], ran["run"]["failed"], ran["run"]["published"]) == (1, 2, {f"{unique}.paid": 1})


async def test_each_letter_is_tried_once_whatever_the_policy_of_its_handler(
    settings: Settings, unique: str, env: dict[str, str], tmp_path: Path, shop: sqlite3.Connection
) -> None:
    await letters(settings, unique, "charge", "fails", "waits", "fails")

    ran = run(env, tmp_path, f"{unique}.charge", "--run", code=1)["run"]

    assert (ran["handled"], ran["failed"]) == (1, 2)
    assert ran["errors"] == ["ConnectionError: the bank is away"] * 2
    assert sorted((tmp_path / "ran").read_text().split()) == ["fails", "fails", "waits"]
