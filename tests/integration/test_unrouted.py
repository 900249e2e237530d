"""A queue without its bindings to the delay ladder: `verify` refuses to start, and what lies there is seen."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from apps import copy_app
from breaking import a_channel, with_broker
from commands import environment, holdfast
from pydantic import SecretStr
from rabbits import Rabbit
from running import a_broker, a_worker, publish_all, running, settings_for
from scraping import figure, site_of
from waiting import Facts, eventually

from holdfast import Context, Event, Retry, Settings, TopologyMissing, Worker, fixed
from holdfast.broker import ladder
from holdfast.broker.amqp import apply_topology
from holdfast.telemetry import TopologyUnverified, Unrouted
from holdfast.testing.servers import free_port


class Paid(Event, type="paid"):
    order: str


@pytest.fixture
async def settings(rabbit: Rabbit, unique: str) -> AsyncIterator[Settings]:
    """Settings for a broker whose management API answers; nothing is left unrouted on it."""
    settings = settings_for(rabbit.node.url, unique)
    yield with_broker(settings, topology="verify", management_url=SecretStr(rabbit.management_url))
    async with a_channel(settings) as channel:
        await channel.queue_purge(ladder.UNROUTED)


@pytest.fixture
def facts() -> Facts:
    return Facts()


async def unbound(worker: Worker) -> str:
    """Declare all that a worker needs, and take the ladder's binding from its queue. Returns the queue's name."""
    queue, settings = worker.handlers[0].queue, worker.settings
    await apply_topology(settings.broker, worker.topology())
    async with a_channel(settings) as channel:
        await channel.queue_unbind(queue, ladder.OUT, ladder.to_queue(queue))
    return queue


def failing_once(settings: Settings, facts: Facts) -> Worker:
    worker = a_worker(settings, facts)

    @worker.handler(Paid, retry=Retry(attempts=2, backoff=fixed(0.1)))
    async def handle(event: Paid, ctx: Context) -> None:
        if ctx.attempt == 1:
            raise OSError("not yet")

    return worker


async def test_a_worker_that_verifies_does_not_start_without_a_binding_of_the_ladder(
    settings: Settings, facts: Facts
) -> None:
    worker = failing_once(settings, facts)
    queue = await unbound(worker)

    with pytest.raises(TopologyMissing) as caught:
        await worker.run()
    await apply_topology(settings.broker, worker.topology())
    async with running(worker):
        await publish_all(settings, [Paid(order="o-1")])
        await facts.settled("handled")

    assert str(caught.value).splitlines() == [
        f"binding of queue {queue} to {ladder.OUT} for {ladder.to_queue(queue)} is missing",
        "`holdfast topology apply` declares them",
    ]


async def test_where_bindings_cannot_be_read_a_worker_that_verifies_starts_and_says_so(
    settings: Settings, facts: Facts
) -> None:
    nobody = SecretStr(f"http://127.0.0.1:{free_port()}")
    worker = failing_once(with_broker(settings, management_url=nobody), facts)
    await apply_topology(settings.broker, worker.topology())

    async with running(worker):
        [unverified] = await facts.until(TopologyUnverified)

    assert nobody.get_secret_value() in unverified.error


async def test_a_retry_that_no_queue_takes_is_logged_counted_found_and_brought_back(
    settings: Settings, facts: Facts, tmp_path: Path
) -> None:
    name = f"{settings.broker.exchange}.w"
    copy_app("one_queue", tmp_path, NAME=name, TYPE="paid")
    env = environment(
        HOLDFAST_BROKER__URL=settings.broker.url.get_secret_value(),
        HOLDFAST_BROKER__MANAGEMENT_URL=str(
            settings.broker.management_url and settings.broker.management_url.get_secret_value()
        ),
        HOLDFAST_BROKER__EXCHANGE=settings.broker.exchange,
        HOLDFAST_IDEMPOTENCY__URL="memory://",
        HOLDFAST_DEAD_LETTERS__FOLDER=str(tmp_path / "state"),
    )
    trusting = with_broker(settings, topology="skip")
    worker = failing_once(trusting, facts)
    queue = await unbound(worker)
    async with running(worker), a_broker(trusting) as broker:
        await publish_all(trusting, [Paid(order="o-1")])
        await facts.settled("postponed")

        async def is_unrouted() -> bool:
            depth = await broker.count(ladder.UNROUTED)
            return depth is not None and depth.ready == 1

        await eventually(is_unrouted, True)

    async with running(worker, http=True):
        [unrouted] = await facts.until(Unrouted)
        counted = figure(await (await site_of(facts)).figures(), "holdfast_unrouted")
        doctor = await asyncio.to_thread(holdfast, "doctor", "--json", folder=tmp_path, env=env)
        await apply_topology(settings.broker, worker.topology())
        replay = ("dead", "replay", ladder.UNROUTED, "--to", queue, "--any-queue", "--yes")
        replayed = await asyncio.to_thread(holdfast, *replay, folder=tmp_path, env=env)
        await facts.settled("handled")

    found = {finding["code"]: finding["message"] for finding in json.loads(doctor.stdout)["findings"]}
    assert (unrouted.messages, counted) == (1, 1.0)
    assert found["unrouted"] == "1 message(s) in holdfast.unrouted"
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr
