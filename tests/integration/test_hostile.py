"""A message made to break its reader ends in the dead-letter queue or in the handler; the connection stays."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pika
import pytest
from running import Facts, a_worker, running

from holdfast import Settings
from holdfast.telemetry import Connected, CopyHeld, Disconnected


def nested(depth: int, *, as_list: bool = False) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value] if as_list else {"a": value}
    return value


@pytest.mark.parametrize(
    "properties",
    [
        {"timestamp": 2**62},
        {"timestamp": 2**64 - 1},
        {"headers": {"deep": nested(1500)}},
        {"headers": {"deep": nested(1500, as_list=True)}},
        {"message_id": b"\xff\xfe"},
        {"type": b"\xff\xfe"},
        {"headers": {b"\xff\xfe": 1}},
        {"headers": {f"h{n}": n for n in range(4000)}},
        {"priority": 255, "reply_to": "x" * 255, "correlation_id": "y" * 255, "app_id": "\x00\x1b[31m"},
        {"headers": {"holdfast-attempt": 2**40, "event-id": "", "event-time": "9" * 300, "event-version": -1}},
    ],
    ids=["time", "last-time", "deep-table", "deep-list", "id", "type", "header-name", "flood", "long", "forged"],
)
async def test_hostile_properties_break_neither_the_connection_nor_their_neighbours(
    settings: Settings, properties: dict[str, Any]
) -> None:
    facts = Facts()
    worker = a_worker(settings, facts)

    @worker.handler("#", idempotent=False)  # bodies without an id, and alike
    async def handle(event: bytes) -> None: ...

    async with running(worker):
        with pika.BlockingConnection(pika.URLParameters(settings.broker.url.get_secret_value())) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            with room_for_recursion():  # pika's, not ours
                raw = encodable(properties)
                channel.basic_publish(settings.broker.exchange, "some.key", b"{}", raw, mandatory=True)
            channel.basic_publish(settings.broker.exchange, "some.key", b"{}", mandatory=True)
        ended = await facts.settled(count=2)

    assert {fact.outcome for fact in ended} <= {"handled", "dead_lettered"}
    assert "handled" in {fact.outcome for fact in ended}
    assert not facts.of(Disconnected)
    assert len(facts.of(Connected)) == 2


async def test_a_message_whose_properties_could_not_be_written_again_is_dead_lettered_all_the_same(
    settings: Settings,
) -> None:
    facts = Facts()
    worker = a_worker(settings, facts)

    @worker.handler("#", idempotent=False)
    async def handle(event: dict[str, Any]) -> None: ...

    async with running(worker):
        with pika.BlockingConnection(pika.URLParameters(settings.broker.url.get_secret_value())) as connection:
            channel = connection.channel()
            for properties in ({"timestamp": 2**33}, {"message_id": b"\xff" * 255, "correlation_id": b"\xff" * 255}):
                channel.basic_publish(settings.broker.exchange, "some.key", b"no JSON", encodable(properties))
        await facts.settled("dead_lettered", count=2)

    assert not facts.of(CopyHeld)


@contextmanager
def room_for_recursion() -> Iterator[None]:
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def encodable(properties: dict[str, Any]) -> pika.BasicProperties:
    """pika writes bytes into short strings as they are, where they look like text to it."""

    class Raw(str):  # noqa: SLOT000
        raw: bytes

        def encode(self, *arguments: Any, **keywords: Any) -> bytes:
            return self.raw

    def as_raw(value: Any) -> Any:
        if isinstance(value, bytes):
            text = Raw("raw")
            text.raw = value
            return text
        return value

    made = {name: as_raw(value) for name, value in properties.items()}
    if isinstance(made.get("headers"), dict):
        made["headers"] = {as_raw(name): value for name, value in made["headers"].items()}
    return pika.BasicProperties(**made)
