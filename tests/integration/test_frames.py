"""Brokers whose frames are larger or smaller than RabbitMQ's usual 131,072 bytes (`frame_max`)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime

import aiormq
import pytest
from running import a_broker, a_worker, publish_all, running, settings_for
from waiting import Facts, Tally

from holdfast import Event, Publisher, Retry, Settings, TooLarge, Unroutable
from holdfast.events import seal
from holdfast.telemetry import Disconnected
from holdfast.testing.servers import Node


class Paid(Event, type="paid"):
    order: int
    note: str = ""


USUAL = 131_072


@pytest.fixture
async def with_large(rabbitmq_node: Node, unique: str) -> AsyncIterator[Settings]:
    async with frames_of(1_048_576, rabbitmq_node):
        yield settings_for(rabbitmq_node.url, unique)


@pytest.fixture
async def with_small(rabbitmq_node: Node, unique: str) -> AsyncIterator[Settings]:
    async with frames_of(8_192, rabbitmq_node):
        yield settings_for(rabbitmq_node.url, unique)


@asynccontextmanager
async def frames_of(size: int, node: Node) -> AsyncIterator[None]:
    """Have new connections to a node agree on frames of this size, as `frame_max` of its configuration does."""
    allow(size, node)
    try:
        connection = await aiormq.connect(node.url)
        await connection.close()
        assert connection.connection_tune.frame_max == size
        yield
    finally:
        allow(USUAL, node)


def allow(size: int, node: Node) -> None:
    node.ctl("eval", f"application:set_env(rabbit, frame_max, {size}).")


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
