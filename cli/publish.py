"""`holdfast publish`: one event from the command line, or one per line of standard input."""

import asyncio
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TextIO

from pydantic_core import from_json
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from ..config import LogSettings, Settings, load_settings
from ..events import ConfigurationError, Envelope, Metadata, PublishError, uuid7
from ..publisher import Publisher
from ..telemetry import configure_logging

WINDOW = 1000
"""Lines read before they are published: memory stays the same however long the input is."""


@dataclass(frozen=True, slots=True)
class _Line:
    number: int
    envelope: Envelope


def publish_events(event_type: str, body: str, *, headers: list[str], delay: float | None) -> int:
    """Publish, print the ids, name what failed. Returns the exit code."""
    settings = load_settings()
    configure_logging(LogSettings(level="ERROR"))
    extra = dict(_header(text) for text in headers)
    if body == "-":
        return asyncio.run(_publish_lines(settings, event_type, sys.stdin, extra, delay))
    envelope = _envelope(event_type, body, extra)
    return asyncio.run(_publish_one(settings, envelope, delay))


async def _publish_one(settings: Settings, envelope: Envelope, delay: float | None) -> int:
    async with Publisher(settings, source="holdfast-cli") as publisher:
        metadata = await publisher.publish(envelope, delay=delay)
    print(metadata.event_id)
    return 0


async def _publish_lines(
    settings: Settings, event_type: str, source: TextIO, headers: dict[str, str], delay: float | None
) -> int:
    published, faults = 0, 0
    console = Console(stderr=True)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("publishing", total=None)
        async with Publisher(settings, source="holdfast-cli") as publisher:
            for window in _windows(source, event_type, headers):
                lines = [line for line in window if isinstance(line, _Line)]
                results = await publisher.publish_many((line.envelope for line in lines), delay=delay)
                failed = [
                    f"line {line.number}: {result}"
                    for line, result in zip(lines, results, strict=True)
                    if isinstance(result, PublishError)
                ]
                broken = [line for line in window if isinstance(line, str)]
                for fault in (*broken, *failed):
                    print(f"holdfast: {fault}", file=sys.stderr)
                faults += len(broken) + len(failed)
                published += len(lines) - len(failed)
                progress.update(bar, completed=published)
    print(f"{published} published" + (f", {faults} not" if faults else ""))
    return 1 if faults else 0


def _windows(source: TextIO, event_type: str, headers: dict[str, str]) -> Iterator[list[_Line | str]]:
    window: list[_Line | str] = []
    for number, text in enumerate(source, 1):
        if not text.strip():
            continue
        try:
            window.append(_Line(number, _envelope(event_type, text, headers)))
        except ConfigurationError as error:
            window.append(f"line {number}: {error}")
        if len(window) == WINDOW:
            yield window
            window = []
    if window:
        yield window


def _envelope(event_type: str, body: str, headers: dict[str, str]) -> Envelope:
    raw = body.strip().encode()
    try:
        from_json(raw, allow_inf_nan=False)
    except ValueError as error:
        raise ConfigurationError(f"not JSON: {error}") from None
    identity = uuid7()
    metadata = Metadata(identity, event_type, datetime.now(UTC), source="holdfast-cli", correlation_id=identity)
    return Envelope(metadata, raw, headers=headers)


def _header(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ConfigurationError(f"--header {text!r} is not NAME=VALUE")
    return name, value
