"""`holdfast keys` and `holdfast dead replay --key`: what an operator does about a key that stands still."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from apps import APPS
from children import a_child
from commands import environment, holdfast
from order_app import Placed
from ordering import attached, handled, lines_of
from running import publish_all, settings_for
from waiting import eventually

from holdfast import Settings

pytestmark = [pytest.mark.server, pytest.mark.timeout(180)]

DEAD, LATE = -1, -2
Command = Callable[..., "asyncio.Future[CompletedProcess[str]]"]


@pytest.fixture
def settings(rabbitmq_url: str, redis_url: str, unique: str) -> Settings:
    return settings_for(rabbitmq_url, unique, redis_url)


@pytest.fixture(params=[1, 4], ids=lambda partitions: f"{partitions}-partitions")
def partitions(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
async def ledger(settings: Settings, tmp_path: Path, partitions: int) -> AsyncIterator[Path]:
    """The file of a worker with a key that a dead letter holds, `a`, and one that waits for its retry, `b`."""
    ledger = tmp_path / "ledger"
    ledger.touch()
    apart = {"TEST_LEDGER": str(ledger), "TEST_PARTITIONS": str(partitions)}
    async with a_child(settings, "order_app", queues=attached(partitions), **apart) as child:
        events = [("a", DEAD), ("b", LATE), ("c", 1), ("a", 2), ("b", 2), ("c", 2)]
        await publish_all(settings, [Placed(order=order, number=number) for order, number in events])
        await child.until("settled dead_lettered")
        await child.until("settled postponed")
        await eventually(lambda: len(handled(lines_of(ledger))), 2)
        yield ledger


@pytest.fixture
def keys(settings: Settings, tmp_path: Path, partitions: int) -> Command:
    env = environment(
        TEST_PARTITIONS=str(partitions),
        HOLDFAST_BROKER__URL=settings.broker.url.get_secret_value(),
        HOLDFAST_BROKER__EXCHANGE=settings.broker.exchange,
        HOLDFAST_DEAD_LETTERS__FOLDER=str(tmp_path / "state"),
    )

    async def run(*arguments: str) -> CompletedProcess[str]:
        return await asyncio.to_thread(holdfast, *arguments, folder=APPS, env=env)

    return run  # type: ignore[return-value]


async def test_keys_that_wait_are_listed_with_what_they_wait_for(keys: Command, ledger: Path) -> None:
    listed = await keys("keys", "list", "order_app:worker", "project", "--json")
    text = await keys("keys", "list", "order_app:worker", "project")

    waiting: list[dict[str, Any]] = json.loads(listed.stdout)["keys"]
    assert {(one["key"], one["state"], one["waiting"]) for one in waiting} == {("a", "held", 2), ("b", "waiting", 2)}
    assert "a: held, 2 wait (dead: refused)" in text.stdout


async def test_the_events_of_a_key_are_shown_in_their_order(keys: Command, ledger: Path) -> None:
    shown = await keys("keys", "show", "order_app:worker", "project", "a", "--json")

    events = json.loads(shown.stdout)["events"]
    assert [event["is_dead"] for event in events] == [True, False]


async def test_the_doctor_names_keys_that_a_dead_letter_holds(keys: Command, ledger: Path, settings: Settings) -> None:
    examined = await keys("doctor", "order_app:worker", "--json")

    held = [one["message"] for one in json.loads(examined.stdout)["findings"] if one["code"] == "keys-held"]
    assert held == [f"queue {settings.broker.exchange}.shop.project: 1 key(s): a"]


async def test_the_doctor_reports_an_ordered_queue_that_nobody_owns(keys: Command, settings: Settings) -> None:
    async with a_child(settings, "order_app", queues=1):
        pass
    await publish_all(settings, [Placed(order="a", number=1)])

    examined = await keys("doctor", "order_app:worker", "--json")

    assert "ledger-unowned" in [one["code"] for one in json.loads(examined.stdout)["findings"]]


async def test_a_key_that_is_skipped_goes_on_without_its_dead_letter(keys: Command, ledger: Path) -> None:
    skipped = await keys("keys", "skip", "order_app:worker", "project", "a", "--json")

    assert skipped.returncode == 0, skipped.stderr
    await eventually(lambda: ("a", 2) in handled(lines_of(ledger)))
    again = await keys("keys", "skip", "order_app:worker", "project", "a")
    assert again.returncode == 1 and "no event waits for key 'a'" in again.stdout


async def test_a_retry_is_made_now_where_an_operator_asks_for_it(keys: Command, ledger: Path) -> None:
    retried = await keys("keys", "retry", "order_app:worker", "project", "b", "--json")

    assert retried.returncode == 0, retried.stderr
    await eventually(lambda: [line.order for line in lines_of(ledger)].count("b"), 2)


async def test_the_dead_letter_of_a_key_is_replayed_before_what_waits(keys: Command, ledger: Path, unique: str) -> None:
    refused = await keys("keys", "retry", "order_app:worker", "project", "a")
    replayed = await keys("dead", "replay", f"{unique}.shop.project", "--key", "a", "--yes", "--wait", "30")

    assert refused.returncode == 1 and "holdfast dead replay --key" in refused.stdout
    assert "1 failed" in replayed.stdout, replayed.stderr  # it is rejected again, and the worker reports that
    await eventually(lambda: [line.number for line in lines_of(ledger) if line.order == "a"], [DEAD, DEAD])
