"""A worker of an earlier Holdfast and one of this take from the same queues, while events flow.

`earlier/holdfast.tar.xz` is the package as it was before its pipeline was rebuilt, without what a worker has no use
for: `git archive --prefix=holdfast/ d5516db -- __init__.py py.typed broker config consumer events idempotency publisher
telemetry | xz -9e`. A shallow clone has no history to take it from.
"""

import json
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import aiormq
import pytest
from apps import APPS
from fleet import Parcel
from running import a_broker, depth, publish_all
from waiting import LIMIT, Arrivals, Log

from holdfast import Settings
from holdfast.broker import Binding, Delivery, Exchange, Queue, Topology

EARLIER = Path(__file__).parent / "earlier" / "holdfast.tar.xz"
EVENTS = 120

pytestmark = pytest.mark.timeout(120)


@contextmanager
def a_worker(name: str, settings: Settings, claims: str, *path: Path) -> Iterator[Log]:
    """A process of the fleet, ready, on the Holdfast that is first on `path`. At the end it stops of itself."""
    log = Log()
    env = {key: value for key, value in os.environ.items() if not key.startswith("HOLDFAST_")} | {
        "HOLDFAST_BROKER__URL": settings.broker.url.get_secret_value(),
        "HOLDFAST_BROKER__EXCHANGE": settings.broker.exchange,
        "HOLDFAST_BROKER__MAX_DELAY": "60",
        "HOLDFAST_IDEMPOTENCY__URL": claims,
        "HOLDFAST_IDEMPOTENCY__PREFIX": settings.broker.exchange,
        "TEST_WORKER": settings.broker.exchange,
        "PYTHONPATH": os.pathsep.join(map(str, path)),
    }
    program = [sys.executable, APPS / "fleet.py", name]
    with subprocess.Popen(program, env=env, stderr=log.output, stdout=log.output) as process:
        log.follow()
        try:
            log.until(lambda text: text.count("consumer.attached") >= 2)
            yield log
            process.send_signal(signal.SIGTERM)
            assert process.wait(LIMIT) == 0, log.text
        finally:
            process.kill()


@pytest.fixture
async def shipped(settings: Settings) -> AsyncIterator[Arrivals[Delivery]]:
    """What came out of the fleet, once for each time it was published."""
    exchange, listener, arrivals = settings.broker.exchange, f"{settings.broker.exchange}.ledger", Arrivals[Delivery]()
    async with a_broker(settings) as broker:
        binding = Binding(exchange, listener, "fleet.shipped")
        await broker.declare(Topology((Exchange(exchange),), (Queue(listener),), (binding,)))
        await broker.consume(listener, prefetch=0, on_delivery=arrivals)
        yield arrivals
    connection = await aiormq.connect(settings.broker.url.get_secret_value())
    channel = await connection.channel()
    for queue in (listener, *(f"{exchange}.{name}{end}" for name in ("pack", "ship") for end in ("", ".dead"))):
        await channel.queue_delete(queue)
    await connection.close()


async def test_an_earlier_worker_and_one_of_this_lose_and_repeat_nothing(
    settings: Settings, redis_url: str, shipped: Arrivals[Delivery], tmp_path: Path
) -> None:
    with tarfile.open(EARLIER) as package:
        package.extractall(tmp_path, filter="data")

    with a_worker("earlier", settings, redis_url, tmp_path) as earlier, a_worker("present", settings, redis_url):
        assert str(tmp_path) in earlier.text
        await publish_all(settings, [Parcel(number=number) for number in range(EVENTS)])
        await shipped.until_true(lambda: len(shipped.all) >= EVENTS, lambda: len(shipped.all))

    ended = [json.loads(delivery.message.body) for delivery in shipped.all]
    assert sorted(event["number"] for event in ended) == list(range(EVENTS))
    assert all(event["attempts"] == attempts(event["number"]) for event in ended)
    assert {(event["packed_by"], event["shipped_by"]) for event in ended} == {
        (one, other) for one in ("earlier", "present") for other in ("earlier", "present")
    }
    for queue in ("pack", "pack.dead", "ship", "ship.dead"):
        assert await depth(settings, f"{settings.broker.exchange}.{queue}") == 0


def attempts(number: int) -> list[int]:
    """At which attempts a parcel is packed and shipped."""
    return [2 if number % 3 == 0 else 1, 2 if number % 3 == 1 else 1]
