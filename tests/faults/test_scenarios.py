"""The short form of the fault suite: some scenarios, once, with a seed of their own. `make faults` runs all."""

import random

import pytest
from account import account
from run import run
from scenarios import SCENARIOS

from holdfast.testing.servers import Node


@pytest.mark.parametrize("name", [name for name, scenario in SCENARIOS.items() if scenario.short])
async def test_every_event_is_accounted_for_when(name: str, rabbitmq_node: Node, redis_node: Node) -> None:
    seed = random.SystemRandom().getrandbits(32)

    told = account(await run(SCENARIOS[name], rabbitmq_node, redis_node, seed))

    assert told.violations == (), f"once more: make faults SEED={seed} ONLY={name!r}"
    assert told.confirmed == told.events > 100
    assert told.faults > 0
