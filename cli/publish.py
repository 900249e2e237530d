"""`holdfast publish`: one event from the command line, or one per line of standard input."""

import asyncio
import os
import stat
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING

from pydantic_core import from_json

from ..config import LogSettings, Settings, load_settings
from ..events import ConfigurationError, Envelope, Message, PublishError, Unroutable, read_metadata, uuid7
from ..publisher import Publisher
from ..telemetry import Disconnected, Fact, configure_logging
from .reach import check_reach

if TYPE_CHECKING:
    from rich.progress import Progress

CHUNK = 1 << 16
"""Bytes read at a time. What a slow producer has written so far is published, not kept waiting for more."""

WINDOW = 2000
"""Lines published together: memory stays the same however long the input is."""

_SOURCE = "holdfast-cli"
_EXAMPLE = '{"order_id": "o-1"}'
_STDIN = 0


class _NotJson(ConfigurationError):
    """A body is no JSON text."""


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of the input with its number from 1; `text` is None where it was too long to keep."""

    number: int
    text: bytes | None


def publish_events(event_type: str, body: str, *, headers: list[str], delay: float | None) -> int:
    """Publish, print the ids, name what failed. Returns the exit code."""
    settings = load_settings()
    configure_logging(LogSettings(level="ERROR"))
    check_reach(settings.broker)
    if not event_type.strip() or len(event_type.encode(errors="replace")) > 255:
        raise ConfigurationError(f"{event_type[:60]!r} is no event type; write a dotted name such as order.created")
    extra = dict(_header(text) for text in headers)
    if body == "-":
        if sys.stdin is None:
            raise ConfigurationError("standard input is closed")
        return asyncio.run(_publish_lines(settings, event_type, extra, delay))
    try:
        envelope = _envelope(event_type, os.fsencode(body), extra)
    except _NotJson as error:
        raise ConfigurationError(f"{error}; for the shell, put it in single quotes: '{_EXAMPLE}'") from None
    return asyncio.run(_publish_one(settings, envelope, delay))


async def _publish_one(settings: Settings, envelope: Envelope, delay: float | None) -> int:
    async with _publisher(settings) as publisher:
        try:
            metadata = await publisher.publish(envelope, delay=delay)
        except PublishError as error:
            raise PublishError(_described(error)) from None
    print(metadata.event_id)
    return 0


async def _publish_lines(settings: Settings, event_type: str, headers: dict[str, str], delay: float | None) -> int:
    published, faults = 0, 0
    splitter = _Splitter(settings.worker.max_body)
    with _progress() as progress:
        async with _publisher(settings) as publisher:
            async for chunk in _read(_STDIN):
                lines = splitter.lines(chunk)
                while window := list(islice(lines, WINDOW)):
                    errors = await _publish_window(publisher, window, event_type, headers, delay)
                    for number in sorted(fault for fault, text in errors.items() if text):
                        faults += 1
                        progress.console.print(
                            f"holdfast: line {number}: {errors[number]}", markup=False, soft_wrap=True
                        )
                    published += sum(1 for text in errors.values() if not text)
                    progress.update(progress.task_ids[0], completed=splitter.taken, published=published)
    print(f"{published} published" + (f", {faults} not" if faults else ""))
    return 1 if faults else 0


async def _publish_window(
    publisher: Publisher, window: list[_Line], event_type: str, headers: dict[str, str], delay: float | None
) -> dict[int, str]:
    """Publish lines. Returns the error of each by its number, empty where it was published."""
    errors: dict[int, str] = {}
    envelopes: dict[int, Envelope] = {}
    for line in window:
        try:
            if line.text is None:
                raise ConfigurationError("longer than HOLDFAST_WORKER__MAX_BODY allows")
            envelopes[line.number] = _envelope(event_type, line.text, headers)
        except ConfigurationError as error:
            errors[line.number] = str(error)
    results = await publisher.publish_many(envelopes.values(), delay=delay)
    for number, result in zip(envelopes, results, strict=True):
        errors[number] = _described(result) if isinstance(result, PublishError) else ""
    return errors


def _publisher(settings: Settings) -> Publisher:
    """One that says at once when it has to wait for the broker."""
    seconds = settings.broker.connect_timeout + settings.broker.publish_timeout
    has_warned = False

    def emit(fact: Fact) -> None:
        nonlocal has_warned
        if isinstance(fact, Disconnected) and not has_warned:
            has_warned = True
            text = f"holdfast: no connection to {fact.url} yet ({fact.error}); trying for up to {seconds:g} s"
            print(text, file=sys.stderr, flush=True)

    return Publisher(settings, source=_SOURCE, emit=emit)


def _described(error: PublishError) -> str:
    hint = "; run the worker that listens to it once, or fix the type" if isinstance(error, Unroutable) else ""
    return " ".join(str(error).split()) + hint


class _Splitter:
    """Cuts chunks into lines; a line longer than `limit` bytes is not kept. Empty lines are passed over."""

    def __init__(self, limit: int) -> None:
        self.taken = 0
        self._limit = limit
        self._number = 0
        self._rest = bytearray()
        self._too_long = False

    def lines(self, chunk: bytes) -> Iterator[_Line]:
        """The lines that `chunk` completes; the empty chunk is the end of the input."""
        self.taken += len(chunk)
        *whole, rest = chunk.split(b"\n") if chunk else (b"", b"")
        for part in whole:
            self._keep(part)
            self._number += 1
            text = bytes(self._rest).removeprefix(b"\xef\xbb\xbf" if self._number == 1 else b"").strip()
            if text or self._too_long:
                yield _Line(self._number, None if self._too_long else text)
            self._rest.clear()
            self._too_long = False
        self._keep(rest)

    def _keep(self, part: bytes) -> None:
        self._rest += part
        if len(self._rest) > self._limit + 3:  # whatever else is in the line, a byte order mark fits
            self._rest.clear()
            self._too_long = True


async def _read(descriptor: int) -> AsyncIterator[bytes]:
    """What comes on a file descriptor, and an empty chunk at its end. A thread reads: the loop must go on turning."""
    loop = asyncio.get_running_loop()
    chunks: asyncio.Queue[bytes | OSError] = asyncio.Queue(2)

    def read() -> None:
        chunk: bytes | OSError = b" "
        while chunk and not isinstance(chunk, OSError):
            try:
                chunk = os.read(descriptor, CHUNK)
            except OSError as error:
                chunk = error
            try:
                asyncio.run_coroutine_threadsafe(chunks.put(chunk), loop).result()
            except RuntimeError:  # the loop is closed: nobody wants more
                return

    threading.Thread(target=read, name="holdfast-stdin", daemon=True).start()
    chunk: bytes | OSError = b" "
    while chunk:
        chunk = await chunks.get()
        if isinstance(chunk, OSError):
            raise chunk
        yield chunk


@contextmanager
def _progress() -> Iterator["Progress"]:
    """Show on a terminal a bar that appears after a second. Of a file it shows the share that was read."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True, highlight=False)
    about = os.fstat(_STDIN)
    columns = (SpinnerColumn(), TextColumn("{task.fields[published]:,} published"), BarColumn(), TimeElapsedColumn())
    progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    progress.add_task("", total=about.st_size if stat.S_ISREG(about.st_mode) else None, published=0)
    appearing = asyncio.get_running_loop().call_later(1.0, progress.start)
    try:
        yield progress
    finally:
        appearing.cancel()
        progress.stop()


def _envelope(event_type: str, body: bytes, headers: dict[str, str]) -> Envelope:
    """The event as any producer's message would be read: `event-id` and its like may be given as headers."""
    try:
        from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise _NotJson(f"not JSON: {error}") from None
    identity = headers.get("event-id") or uuid7()
    message = Message(
        body, headers=headers, type=event_type, app_id=_SOURCE, correlation_id=identity, message_id=identity
    )
    return Envelope(read_metadata(message, datetime.now(UTC)), body, headers=headers)


def _header(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ConfigurationError(f"--header {text!r} is not NAME=VALUE")
    return name, value
