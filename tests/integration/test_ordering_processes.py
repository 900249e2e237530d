"""Order per key across processes that are killed, stopped, frozen and cut off. ORDER_FAULTS=200 makes a soak of it."""

import os
import random
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from ordering import SOME, Crew, Line, at_random, inversions, lines_of, overlaps, seed_of_environment, sinking_fences
from running import a_broker, settings_for

from holdfast import Settings
from holdfast.broker import ledger_queue, partition_queues
from holdfast.testing.servers import Node

pytestmark = [pytest.mark.server, pytest.mark.timeout(3600)]

FAULTS = int(os.environ.get("ORDER_FAULTS", SOME))


@pytest.fixture
def settings(rabbitmq_node: Node, redis_url: str, unique: str) -> Settings:
    return settings_for(rabbitmq_node.url, unique, redis_url, lease=3)


@pytest.mark.parametrize("partitions", [1, 4])
async def test_the_order_holds_through_whatever_takes_the_queue_from_its_owner(
    rabbitmq_node: Node, settings: Settings, tmp_path: Path, partitions: int
) -> None:
    ledger, seed = tmp_path / "ledger", seed_of_environment()
    luck = random.Random(seed)

    async with AsyncExitStack() as stack:
        crew = Crew(rabbitmq_node, settings, ledger, stack, luck, partitions)
        for _ in range(3):
            await crew.add()
        await at_random(crew, luck, FAULTS)
        await crew.until_handled("abcd")

    lines = lines_of(ledger)
    print(f"seed {seed}: {len(lines)} lines, {FAULTS} faults, {max(line.fence for line in lines)} owners")
    await assert_in_order(settings, lines, crew, partitions)


@pytest.mark.parametrize("partitions", [1, 4])
async def test_the_order_holds_while_processes_are_added_replaced_and_taken_away(
    rabbitmq_node: Node, settings: Settings, tmp_path: Path, partitions: int
) -> None:
    ledger, luck = tmp_path / "ledger", random.Random(seed_of_environment())

    async with AsyncExitStack() as stack:
        crew = Crew(rabbitmq_node, settings, ledger, stack, luck, partitions)
        await crew.add()
        for change in [*[crew.add] * 3, *[crew.replace] * 4, *[crew.leave] * 3]:
            await crew.under_load(change)
        await crew.until_handled("abcd")

    await assert_in_order(settings, lines_of(ledger), crew, partitions)


async def assert_in_order(settings: Settings, lines: list[Line], crew: Crew, partitions: int) -> None:
    assert inversions(lines) == []
    assert overlaps(lines, crew.killed) == []
    assert sinking_fences(lines, crew.killed | crew.cut_off, partitions) == []
    queue = f"{settings.broker.exchange}.shop.project"
    await crew.own_it_all(queue)
    async with a_broker(settings) as broker:
        for name in {queue, *partition_queues(queue, partitions)}:
            depth = await broker.count(ledger_queue(name))
            assert depth is not None and depth.ready == 1
