"""`holdfast outbox`: committed events that wait to be sent, and those that are held."""

import asyncio
import json
from pathlib import Path
from typing import Any

from ..config import load_settings
from ..events import ConfigurationError
from ..sql import Row, Statements, Steps, time_of
from .sql import ask, opened, sending
from .words import console, print_json

_HELD = ("number", "key", "event_id", "attempts", "again_in", "error")
_EVENT = (
    *("event_id", "event_type", "version", "key", "source", "correlation_id", "causation_id"),
    *("time", "headers", "content_type", "body", "caused_by"),
)


def show_outbox(*, as_json: bool) -> None:
    """Print how many events wait."""

    async def read() -> dict[str, Any]:
        settings = load_settings()
        async with opened(settings) as database:
            statements = sending(database, settings)
            [(pending, oldest, held)] = await ask(database, statements.figures)
            [(alive,)] = await ask(database, statements.alive)
        return {"pending": pending, "oldest_seconds": round(oldest or 0.0, 1), "held": held, "relays": alive}

    figures = asyncio.run(read())
    if as_json:
        print_json(figures)
    else:
        print(f"{figures['pending']} wait, the oldest for {figures['oldest_seconds']:g} s; {figures['held']} are held")
        print(f"{figures['relays']} relay(s) alive")


def list_held(*, as_json: bool) -> None:
    """Print the events that are held."""

    async def read() -> list[Row]:
        settings = load_settings()
        async with opened(settings) as database:
            return await ask(database, sending(database, settings).held)

    events = [dict(zip(_HELD, row, strict=True)) for row in asyncio.run(read())]
    if as_json:
        print_json(events)
        return
    for event in events:
        line = f"{event['number']} key {event['key']} event {event['event_id']}: {event['error']}"
        console().print(f"{line} (attempts: {event['attempts']}, again in {event['again_in']:.0f} s)", soft_wrap=True)
    print(f"{len(events)} held")


def release_held(number: int) -> None:
    """Let one event be tried again now. Raises `ConfigurationError` where it is not held."""

    async def release() -> list[Row]:
        settings = load_settings()
        async with opened(settings) as database:
            return await ask(database, sending(database, settings).release, seq=str(number))

    if not asyncio.run(release()):
        raise _not_held(number)
    print(f"event {number} is tried again now")


def drop_held(number: int, archive: Path) -> None:
    """Write one event to a file and delete it. Raises `ConfigurationError` where it is not held."""

    async def drop() -> None:
        settings = load_settings()
        async with opened(settings) as database:
            await database.run(_drop(sending(database, settings), number, archive))

    asyncio.run(drop())
    print(f"event {number} is in {archive}, and deleted")


def _drop(statements: Statements, number: int, archive: Path) -> Steps[None]:
    """The event is on disk before the transaction that deletes it commits."""
    seq = {"seq": str(number)}
    rows = yield statements.held_event, seq
    if not rows:
        raise _not_held(number)
    event = dict(zip(_EVENT, rows[0], strict=True))
    event["time"] = time_of(event["time"]).isoformat()
    event["headers"], event["body"] = json.loads(event["headers"]), bytes(event["body"]).decode(errors="replace")
    with archive.open("a") as file:
        file.write(json.dumps(event) + "\n")
    yield statements.drop, seq
    yield statements.unhold, seq


def _not_held(number: int) -> ConfigurationError:
    return ConfigurationError(f"no event with number {number} is held; `holdfast outbox held` lists them")
