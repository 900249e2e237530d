"""What `holdfast journal` changes: read models, queues of new listeners, the journal itself."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import typer

from ...broker import open_broker, stream_of
from ...config import BrokerSettings, Settings
from ...consumer import HandlerSpec
from ...dead_letters.selection import moment
from ...events import ConfigurationError
from ...journal import Fed, Feed, TapeFeed, erase, outgoing_of, write_past
from ...telemetry import FactLog, configure_logging
from ..load import load_worker
from ..reach import check_reach
from ..sql import opened
from .reading import a_reader

_LINES = 500


def rebuild_projection(name: str, version: int, *, is_sure: bool) -> None:
    """Have a projection begin anew. Raises `ConfigurationError` where no worker has run it."""
    _ask(f"make projection {name} v{version} anew?", is_sure)

    async def rebuild() -> bool:
        async with a_reader() as reader:
            return bool(await reader.ask(reader.history.rebuild, name=f"projection:{name}:{version}"))

    if not asyncio.run(rebuild()):
        raise ConfigurationError(f"no projection {name!r} with version {version}; `holdfast journal status` lists them")
    print(f"projection {name} v{version} begins anew")


def feed_handler(target: str, name: str, since: str | None, *, dry_run: bool, from_stream: bool) -> None:
    """Feed the past to a handler of a worker, or count what would be fed: from the journal, or from the stream."""
    worker = load_worker(target)
    [spec] = worker.selected([name])
    settings, began = worker.settings, None if since is None else moment(since).timestamp()
    configure_logging(settings.log)
    a_feed = partial(_of_stream, spec, settings) if from_stream else partial(_of_journal, spec, settings, dry_run)

    async def run() -> Fed:
        async with a_feed() as feed:
            return await (feed.rehearse(since=began) if dry_run else feed.run(since=began))

    fed = asyncio.run(run())
    for event_type, count in sorted(fed.types.items()):
        print(f"{count} {event_type}")
    verb, where = "would be fed" if dry_run else "fed", "offset" if from_stream else "position"
    print(f"{sum(fed.types.values())} event(s) up to {where} {fed.position} {verb} to {spec.queue}")


@asynccontextmanager
async def _of_journal(spec: HandlerSpec, settings: Settings, dry_run: bool) -> AsyncIterator[Feed]:
    if not dry_run:
        check_reach(settings.broker)
    async with opened(settings) as database:
        await database.check(settings.sql.schema, keeps=True)
        broker: Any = None if dry_run else await open_broker(settings, FactLog())
        try:
            yield Feed(spec, database, broker, settings)
        finally:
            if broker is not None:
                await broker.close()


@asynccontextmanager
async def _of_stream(spec: HandlerSpec, settings: Settings) -> AsyncIterator[TapeFeed]:
    check_stream(settings.broker)
    broker = await open_broker(settings, FactLog())
    try:
        yield TapeFeed(spec, broker, settings)
    finally:
        await broker.close()


def check_stream(settings: BrokerSettings) -> None:
    """Raise `ConfigurationError` where there is no stream that this process can read."""
    stream_of(settings)
    check_reach(settings)


def import_events(file: Path) -> None:
    """Read events from a file, 500 in a transaction. Raises `ConfigurationError` naming a line that holds none."""

    async def read() -> tuple[int, int]:
        lines, written, seen = file.open(), 0, 0
        with lines:
            async with a_reader() as reader:
                while chunk := list(islice(lines, _LINES)):
                    events = [outgoing_of(line, seen + n) for n, line in enumerate(chunk, 1)]
                    written += await reader.database.run(write_past(reader.history, events))
                    seen += len(chunk)
        return written, seen

    written, seen = asyncio.run(read())
    print(f"{written} event(s) are imported; {seen - written} were there")


def erase_key(key: str, *, is_sure: bool) -> None:
    """Take away the bodies of a key's events."""
    _ask(f"take away the bodies of all events of key {key!r}, for good?", is_sure)

    async def run() -> int:
        async with a_reader() as reader:
            return await reader.database.run(erase(reader.history, key))

    print(f"{asyncio.run(run())} event(s) of key {key} are erased")


def _ask(question: str, is_sure: bool) -> None:
    if not is_sure:
        typer.confirm(question, abort=True)
