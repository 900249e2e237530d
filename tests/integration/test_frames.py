"""Brokers whose frames are larger or smaller than RabbitMQ's usual 131,072 bytes (`frame_max`)."""

import asyncio
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from console import ConsoleRabbitMQ
from running import a_broker, a_worker, publish_all, running, settings_for
from waiting import Facts, Tally

from holdfast import Event, Publisher, Retry, Settings, TooLarge, Unroutable
from holdfast.events import seal
from holdfast.telemetry import Disconnected
from holdfast.testing.servers import PrivateRabbitMQ, ServersUnavailable, find_rabbitmq


class Paid(Event, type="paid"):
    order: int
    note: str = ""


@contextmanager
def a_node(frame_max: int) -> Iterator[PrivateRabbitMQ]:
    programs = find_rabbitmq()
    if programs is None:
        raise ServersUnavailable("rabbitmq-server is not installed on this machine")
    with tempfile.TemporaryDirectory(prefix="holdfast-rabbit-", ignore_cleanup_errors=True) as name:
        (Path(name) / "home").mkdir()
        (Path(name) / "rabbitmq.conf").write_text(f"frame_max = {frame_max}\n")
        node = ConsoleRabbitMQ(programs, Path(name))
        try:
            node.start()
            yield node
        finally:
            node.close()


@pytest.fixture(scope="module")
def large() -> Iterator[PrivateRabbitMQ]:
    with a_node(1_048_576) as node:
        yield node


@pytest.fixture(scope="module")
def small() -> Iterator[PrivateRabbitMQ]:
    with a_node(8_192) as node:
        yield node


@pytest.fixture
def with_large(large: PrivateRabbitMQ, unique: str) -> Settings:
    return settings_for(large.url, unique)


@pytest.fixture
def with_small(small: PrivateRabbitMQ, unique: str) -> Settings:
    return settings_for(small.url, unique)


async def test_bodies_in_frames_larger_than_the_usual_are_handled(with_large: Settings) -> None:
    facts, seen = Facts(), Tally[int]()
    worker = a_worker(with_large, facts)

    @worker.handler(Paid, prefetch=1)
    async def handle(event: Paid) -> None:
        seen[event.order] += 1

    async with running(worker):
        await publish_all(with_large, [Paid(order=order, note="x" * 900_000) for order in range(5)])
        await seen.until(lambda: len(seen) == 5)


async def test_a_return_in_a_frame_larger_than_the_usual_leaves_the_confirms(with_large: Settings) -> None:
    class Nowhere(Event, type="nowhere"):
        note: str

    worker = a_worker(with_large, Facts())
    worker.handler(Paid, name="handle")(_ignore)
    async with a_broker(with_large) as broker:
        await broker.declare(worker.topology())

    async with Publisher(with_large) as publisher, asyncio.timeout(20):
        for _ in range(5):
            with pytest.raises(Unroutable):
                await publisher.publish(Nowhere(note="x" * 900_000))
            await publisher.publish(Paid(order=1))


async def _ignore(event: Paid) -> None:
    """Nothing is done."""


async def test_headers_that_no_frame_of_the_broker_holds_are_refused_at_once(with_small: Settings) -> None:
    facts = Facts()
    async with Publisher(with_small, emit=facts.record) as publisher, asyncio.timeout(8):
        event = replace(seal(Paid(order=1), source="test", now=datetime.now(UTC)), headers={"note": "x" * 10_000})
        with pytest.raises(TooLarge):
            await publisher.publish(event)

    assert not facts.of(Disconnected)


async def test_a_dead_letter_fits_the_frames_of_its_broker(with_small: Settings) -> None:
    facts = Facts()
    worker = a_worker(with_small, facts)

    @worker.handler(Paid, retry=Retry(attempts=1))
    async def handle(event: Paid) -> None:
        try:
            raise ValueError("a" * 20_000)
        except ValueError as error:
            raise KeyError("b" * 20_000) from error

    async with running(worker):
        await publish_all(with_small, [Paid(order=1)])
        await facts.settled("dead_lettered")

    assert not facts.of(Disconnected)
