"""Every scenario on one broker once, with a seed of its own, several at a time. `make faults` runs them one by one."""

import asyncio
import random
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from account import Account, account
from releases import rabbitmq_node
from run import heal, run
from scenarios import SCENARIOS

from holdfast.testing.servers import redis_node

LANES = 3  # at a time; they wait more than they compute
NAMES = [name for name, scenario in SCENARIOS.items() if not scenario.cluster]

Runs = dict[str, tuple[int, Future[Account]]]


@pytest.fixture(scope="module")
def runs(request: pytest.FixtureRequest) -> Iterator[Runs]:
    """The scenarios that were asked for, by name: seed and account. Each lane has servers of its own."""
    chosen = [item.callspec.params["name"] for item in request.session.items if item.fspath == request.node.fspath]  # type: ignore[attr-defined]
    seeds = random.SystemRandom()
    runs: Runs = {name: (seeds.getrandbits(32), Future()) for name in chosen}
    waiting = iter(list(runs.items()))

    def lane() -> None:
        try:
            with rabbitmq_node() as broker, redis_node() as claims:
                for name, (seed, told) in waiting:
                    try:
                        told.set_result(account(asyncio.run(run(SCENARIOS[name], broker, claims, seed))))
                    except Exception as error:  # noqa: BLE001 (its test tells it)
                        told.set_exception(error)
                        heal(broker, claims)
        except Exception as error:  # noqa: BLE001 (no servers: the tests that wait tell it)
            for _, (_, told) in waiting:
                told.set_exception(error)

    with ThreadPoolExecutor(LANES) as lanes:
        for _ in range(LANES):
            lanes.submit(lane)
        yield runs
        for _ in waiting:  # nobody asks any more
            pass


@pytest.mark.timeout(600)  # RabbitMQ may try again after 3 minutes (docs/reliability.md)
@pytest.mark.parametrize("name", NAMES)
async def test_every_event_is_accounted_for_when(name: str, runs: Runs) -> None:
    seed, told = runs[name]

    told = await asyncio.wrap_future(told)

    assert told.violations == (), f"once more: make faults SEED={seed} ONLY={name!r}"
    assert told.confirmed == told.events > 100
    assert told.faults > 0
