"""Many events, many failures, little memory."""

import asyncio
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from apps import APPS
from running import a_broker, a_worker, depth, publish_all, running, take
from waiting import Facts, eventually
from yarl import URL

from holdfast import Context, Event, Retry, Settings
from holdfast.broker.amqp.connection import WiredConnection, close_quietly
from holdfast.broker.codec import pack
from holdfast.events import headers as h
from holdfast.events import seal, to_message
from holdfast.telemetry import Settled

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


class Paid(Event, type="paid"):
    order: int


@pytest.mark.timeout(180)
async def test_ten_thousand_events_with_random_failures_are_all_accounted_for(
    settings: Settings,
) -> None:
    facts, luck, done = Facts(), random.Random(7), {name: Counter[int]() for name in ("first", "second", "third")}
    worker = a_worker(settings, facts)

    def register(name: str) -> None:
        @worker.handler(Paid, name=name, retry=Retry(attempts=3, backoff=lambda attempt: 0.1 * attempt))
        async def handle(event: Paid, ctx: Context) -> None:
            if luck.random() < 0.05 or event.order % 5000 == 0:
                raise OSError("bad luck")
            done[name][event.order] += 1

    for name in done:
        register(name)

    async with running(worker):
        await publish_all(settings, (Paid(order=n) for n in range(10_000)))
        ended = await facts.until(Settled, lambda fact: fact.outcome in ("handled", "dead_lettered"), count=30_000)

    for name, counter in done.items():
        queue = f"{worker.name}.{name}"
        dead = [fact for fact in ended if (fact.handler, fact.outcome) == (name, "dead_lettered")]
        assert await depth(settings, queue) == 0
        assert await depth(settings, f"{queue}.dead") == len(dead) >= 2
        assert set(counter.values()) == {1}
        async with a_broker(settings) as broker:
            letters = await take(broker, f"{queue}.dead", len(dead))
        assert len(counter) + len(letters) == 10_000
        assert {letter.headers[h.REASON] for letter in letters} == {"exhausted"}


@pytest.mark.timeout(180)
async def test_an_idle_worker_is_small_and_a_hundred_thousand_waiting_messages_hardly_show(
    settings: Settings, redis_url: str
) -> None:
    """The child prints its memory when it is ready, and again while the backlog waits behind its prefetch."""
    url, exchange = settings.broker.url.get_secret_value(), settings.broker.exchange
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, str(APPS / "idle_worker.py"), url, exchange, redis_url),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdin and child.stdout
    try:
        idle = int(await child.stdout.readline())
        await publish_all(settings, (Paid(order=n) for n in range(1_000)))  # more than it takes
        await pile_up(settings, f"{exchange}.w.handle", 99_000)
        child.stdin.write(b"measure\n")
        loaded = int(await child.stdout.readline())
    finally:
        child.kill()
        await child.wait()

    assert idle < 70 * 1024, f"idle: {idle} KiB"
    assert loaded - idle < 30 * 1024, f"idle: {idle} KiB, with a backlog: {loaded} KiB"


async def pile_up(settings: Settings, queue: str, count: int) -> None:
    """Have messages wait in a queue: the same one many times, which nobody is to read."""
    connection = WiredConnection(URL(settings.broker.url.get_secret_value()))
    await connection.connect()
    channel = await connection.open_channel()
    message = to_message(seal(Paid(order=-1), source="test"), exchange="", routing_key=queue)
    frames = pack(message).frames(channel.below.number, connection.frame_max)
    connection.wire.transport.write(frames * count)

    async def waits() -> bool:
        return await depth(settings, queue) >= count

    await eventually(waits, every=0.1)
    await close_quietly(connection, 5)


@pytest.mark.timeout(180)
def test_dead_letters_are_listed_and_filtered_in_no_time_and_are_as_they_were(rabbitmq_url: str) -> None:
    """The small form of `make bench-dead`."""
    command = [sys.executable, str(BENCHMARKS / "dead_letters.py"), rabbitmq_url, "2000", "5"]

    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
