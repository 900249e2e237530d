"""What `holdfast journal` prints of kept events."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from ...config import load_settings
from ...consumer import HandlerSpec
from ...dead_letters.selection import moment
from ...events import BrokerUnavailable, ConfigurationError
from ...journal import Evidence, Recorded, Traces, line_of, outcomes_of, recorded_of, trees
from ...sql import Database, History, Row
from ..dead.session import open_service
from ..load import load_worker
from ..sql import ask, opened
from ..words import console, print_json

_PAGE = 500


class Reader:
    """Reads the journal at `HOLDFAST_SQL__URL`."""

    def __init__(self, database: Database[Any], history: History) -> None:
        self.database, self.history = database, history

    async def events(
        self, *conditions: str, params: Mapping[str, Any], most: int = _PAGE, last: bool = False
    ) -> list[Recorded]:
        """Return the events that these conditions hold for, in order."""
        rows = await ask(self.database, self.history.select(*conditions, last=last), most=most, **params)
        return [recorded_of(row) for row in (reversed(rows) if last else rows)]

    async def ask(self, statement: str, **params: Any) -> list[Row]:
        return await ask(self.database, statement, **params)


@asynccontextmanager
async def a_reader() -> AsyncIterator[Reader]:
    """Open the journal. Raises `ConfigurationError` where the database does not keep events."""
    settings = load_settings()
    async with opened(settings) as database:
        await database.check(settings.sql.schema, keeps=True)
        yield Reader(database, database.history(settings.sql.schema))


def print_tail(event_type: str | None, key: str | None, limit: int, *, follow: bool, as_json: bool) -> None:
    """Print the last events, and with `follow` those that come, until it is interrupted."""
    show = (lambda event: print(line_of(event), flush=True)) if as_json else _print_line
    with suppress(KeyboardInterrupt):
        asyncio.run(_tail(_filters(event_type, key), limit, show, follow=follow))


async def _tail(filters: dict[str, str], limit: int, show: Callable[[Recorded], None], *, follow: bool) -> None:
    poll = load_settings().sql.poll
    async with a_reader() as reader:
        conditions = _conditions(filters)
        events = await reader.events(*conditions, "1 = 1", params=filters, most=limit, last=True)
        [(position, *_)] = await reader.ask(reader.history.bounds) if not events else [(events[-1].position,)]
        while True:
            for event in events:
                show(event)
                position = event.position
            if not follow:
                return
            if not events:
                await asyncio.sleep(poll)
            events = await reader.events(*conditions, reader.history.after, params={**filters, "after": str(position)})


def print_event(event_id: str, *, as_json: bool) -> None:
    """Print one event. Raises `ConfigurationError` where it is not in the journal."""

    async def read() -> list[Recorded]:
        async with a_reader() as reader:
            return await reader.events("e.event_id = :event_id", params={"event_id": event_id})

    events = asyncio.run(read())
    if not events:
        raise _unknown(event_id)
    [event] = events
    values = json.loads(line_of(event))
    if as_json:
        print_json(values)
        return
    body = values.pop("body", None) or values.pop("body_base64", "")
    for name, value in values.items():
        if value not in (None, ""):
            console().print(f"{name:>15}  {value}", soft_wrap=True)
    console().print("erased" if event.is_erased else body, soft_wrap=True)


def print_why(event_id: str, worker: str | None, *, as_json: bool) -> None:
    """Print the tree of causes and effects, and how each listener ended. Raises `ConfigurationError` where the event is
    not in the journal."""
    handlers = () if worker is None else tuple(load_worker(worker).handlers)

    async def read() -> tuple[list[Recorded], Traces]:
        async with a_reader() as reader, an_evidence(reader.database, handlers) as evidence:
            events = await evidence.family(event_id)
            return events, await evidence.traces(events) if events else Traces()

    events, traces = asyncio.run(read())
    if not events:
        raise _unknown(event_id)
    lines = [line for tree in trees(events) for line in tree.lines()]
    ended = outcomes_of(events, traces)
    for unread in traces.unread:
        print(f"not looked at: {unread}", file=sys.stderr)
    if as_json:
        print_json(
            [
                {"depth": depth, **json.loads(line_of(event)), "listeners": [asdict(o) for o in ended[event.event_id]]}
                for depth, event in lines
            ]
        )
        return
    for depth, event in lines:
        mark = "  <- this one" if event.event_id == event_id and len(lines) > 1 else ""
        console().print("   " * depth + f"{_line(event)}{mark}", soft_wrap=True)
        for outcome in ended[event.event_id]:
            line = f"* {outcome.queue}: {outcome.state} ({outcome.by})"
            console().print("   " * (depth + 1) + line, soft_wrap=True)


@asynccontextmanager
async def an_evidence(database: Database[Any], handlers: tuple[HandlerSpec, ...] = ()) -> AsyncIterator[Evidence]:
    """Return where traces of events are looked for. A broker that is unavailable is left out."""
    settings = load_settings()
    if settings.broker.url.get_secret_value().startswith("memory:"):
        yield Evidence(database, settings, None, handlers, "HOLDFAST_BROKER__URL is memory://, inside one process")
        return
    async with AsyncExitStack() as stack:
        try:
            service = await stack.enter_async_context(open_service())
        except BrokerUnavailable as error:
            yield Evidence(database, settings, None, handlers, str(error))
            return
        yield Evidence(database, settings, service, handlers)


def print_status(*, as_json: bool) -> None:
    """Print how far the journal and its projections are."""

    async def read() -> dict[str, Any]:
        async with a_reader() as reader:
            history = reader.history
            [(last, first, _)] = await reader.ask(history.bounds)
            [(pending, oldest, held)] = await reader.ask(history.figures)
            rows = await reader.ask(history.readers)
        return {
            "first": first or 0,
            "last": last,
            "pending": pending,
            "oldest_seconds": round(oldest or 0.0, 1),
            "held": held,
            "projections": [_projection(name, position, last) for name, position in rows if not _stream(name)],
            "streams": [{"name": stream, "offset": position} for name, position in rows if (stream := _stream(name))],
        }

    figures = asyncio.run(read())
    if as_json:
        print_json(figures)
        return
    print(f"positions {figures['first']} to {figures['last']}; {figures['pending']} wait to be sent")
    for each in figures["projections"]:
        print(f"projection {each['name']} v{each['version']}: position {each['position']}, {each['behind']} behind")
    for each in figures["streams"]:
        print(f"stream {each['name']}: recorded up to offset {each['offset']}")


def export_events(file: Path, since: str | None, event_type: str | None, key: str | None) -> None:
    """Write events to a file, which is complete or not there."""
    filters, partial_file = _filters(event_type, key), file.with_name(f"{file.name}.part")

    async def write() -> int:
        written, after = 0, 0
        started: dict[str, Any] = {"since": moment(since).timestamp()} if since is not None else {}
        async with a_reader() as reader:
            read = partial(reader.events, *_conditions(filters), *([reader.history.since] if started else []))
            with partial_file.open("w") as lines:
                while events := await read(reader.history.after, params={**filters, **started, "after": str(after)}):
                    lines.writelines(f"{line_of(event)}\n" for event in events)
                    written, after = written + len(events), events[-1].position
        return written

    written = asyncio.run(write())
    partial_file.replace(file)
    print(f"{written} event(s) are in {file}")


def _stream(name: str) -> str:
    """Return the stream that is recorded under a name; "" if that is no recording."""
    kind, _, rest = name.partition(":")
    return rest if kind == "stream" else ""


def _projection(name: str, position: int, last: int) -> dict[str, Any]:
    title, _, version = name.removeprefix("projection:").rpartition(":")
    return {"name": title, "version": int(version), "position": max(position, 0), "behind": last - max(position, 0)}


def _filters(event_type: str | None, key: str | None) -> dict[str, str]:
    given = {"event_type": event_type, "key": key}
    return {name: value for name, value in given.items() if value is not None}


def _conditions(filters: dict[str, str]) -> list[str]:
    return [f"e.{name} = :{name}" for name in filters]


def _line(event: Recorded) -> str:
    metadata = event.metadata
    who = f"by {metadata.caused_by}" if metadata.caused_by else f"from {metadata.source}" if metadata.source else ""
    key = f" {metadata.key}" if metadata.key is not None else ""
    time = metadata.time.isoformat(timespec="milliseconds")
    return f"{event.position} {time} {metadata.event_type}{key} {metadata.event_id} {who}".rstrip()


def _print_line(event: Recorded) -> None:
    console().print(_line(event), soft_wrap=True)


def _unknown(event_id: str) -> ConfigurationError:
    return ConfigurationError(f"no event {event_id!r} is in the journal")
