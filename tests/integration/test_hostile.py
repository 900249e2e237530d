"""A message made to break its reader ends in the dead-letter queue or in the handler; the connection stays."""

import asyncio
from typing import Any

import pytest
from hostile import BODIES, PROPERTIES, publish_raw
from running import a_worker, running
from waiting import Facts

from holdfast import Event, Settings
from holdfast.telemetry import Connected, CopyHeld, Disconnected

HARMLESS = {"keys twice"}


class Job(Event, type="job"):
    does: str = "return"
    seq: int = 0


async def send(settings: Settings, key: str, *messages: tuple[bytes, dict[str, Any]]) -> None:
    url = settings.broker.url.get_secret_value()
    await asyncio.to_thread(publish_raw, url, settings.broker.exchange, key, list(messages))


@pytest.mark.parametrize("properties", PROPERTIES.values(), ids=PROPERTIES.keys())
async def test_hostile_properties_break_neither_the_connection_nor_their_neighbours(
    settings: Settings, properties: dict[str, Any]
) -> None:
    facts = Facts()
    worker = a_worker(settings, facts)

    @worker.handler("#", idempotent=False)  # bodies without an id, and alike
    async def handle(event: bytes) -> None: ...

    async with running(worker):
        await send(settings, "some.key", (b"{}", properties), (b"{}", {}))
        ended = await facts.settled(count=2)

    assert {fact.outcome for fact in ended} <= {"handled", "dead_lettered"}
    assert "handled" in {fact.outcome for fact in ended}
    assert not facts.of(Disconnected)
    assert len(facts.of(Connected)) == 2


async def test_hostile_bodies_are_dead_letters_and_their_neighbours_are_handled(settings: Settings) -> None:
    facts = Facts()
    worker = a_worker(settings, facts)

    @worker.handler(Job)
    async def handle(event: Job) -> None: ...

    async with running(worker):
        bad = [(body, {"message_id": name} | properties) for name, (body, properties) in BODIES.items()]
        await send(settings, "job", *bad, (b"{}", {"message_id": "neighbour"}))
        ended = await facts.settled(count=len(BODIES) + 1)

    outcomes = {fact.metadata.event_id: fact.outcome for fact in ended}
    handled = {"neighbour", *HARMLESS}
    assert outcomes == dict.fromkeys(BODIES, "dead_lettered") | dict.fromkeys(handled, "handled")
    assert not facts.of(Disconnected)


async def test_a_message_whose_properties_cannot_be_written_again_is_still_dead_lettered(
    settings: Settings,
) -> None:
    facts = Facts()
    worker = a_worker(settings, facts)

    @worker.handler("#", idempotent=False)
    async def handle(event: dict[str, Any]) -> None: ...

    async with running(worker):
        late, long = {"timestamp": 2**33}, {"message_id": b"\xff" * 255, "correlation_id": b"\xff" * 255}
        await send(settings, "some.key", (b"no JSON", late), (b"no JSON", long))
        await facts.settled("dead_lettered", count=2)

    assert not facts.of(CopyHeld)
