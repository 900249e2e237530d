"""Every scenario on one broker once, with a seed of its own. `make faults` runs them without other tests."""

import asyncio
import random
from collections.abc import Iterator
from concurrent.futures import Future

import pytest
from account import Account
from lanes import lanes
from scenarios import SCENARIOS

LANES = 2  # at a time, next to other tests; more of them wait for each other and spend twice the CPU
ELSEWHERE = {
    "owners of an ordered queue are killed",
    "the owner of an ordered queue is frozen past its lease",
    "the owner of an ordered queue is cut off",
    "the network swallows what the owner of an ordered queue says",
}
"""In `make faults` and `make soak` alone: test_ordering.py and test_ordering_processes.py do the same to owners."""
NAMES = [
    name
    for name, scenario in SCENARIOS.items()
    if not scenario.cluster and scenario.partitions == 1 and name not in ELSEWHERE
]

Runs = dict[str, tuple[int, Future[Account]]]


@pytest.fixture(scope="module")
def runs(request: pytest.FixtureRequest) -> Iterator[Runs]:
    """The scenarios that were asked for, by name: seed and account."""
    chosen = [item.callspec.params["name"] for item in request.session.items if item.fspath == request.node.fspath]  # type: ignore[attr-defined]
    luck = random.SystemRandom()
    seeds = {name: luck.getrandbits(32) for name in chosen}
    with lanes(LANES, seeds) as accounts:
        yield {name: (seed, accounts[name]) for name, seed in seeds.items()}


@pytest.mark.timeout(600)  # RabbitMQ may try again after 3 minutes (docs/reliability.md)
@pytest.mark.parametrize("name", NAMES)
async def test_every_event_is_accounted_for_when(name: str, runs: Runs) -> None:
    seed, run = runs[name]

    account = await asyncio.wrap_future(run)

    assert account.violations == (), f"once more: make faults SEED={seed} ONLY={name!r}"
    assert account.confirmed == account.events > 100
    assert account.faults > 0
