"""`holdfast follow`: what has become of a request, event by event."""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from ..config import LogSettings
from ..events import ConfigurationError
from ..idempotency import Entry, progress_of
from ..publisher import Following
from ..telemetry import configure_logging
from .words import console, print_json


def run_follow(request: str | None, *, forget: str | None, within: float | None, as_json: bool) -> int:
    """Print the events of a request as they change, until it is done. Returns the exit code: 0 where it is done.

    Raises `ConfigurationError` without a request, and `StoreUnavailable`."""
    configure_logging(LogSettings(level="ERROR"))
    if forget is None and request is None:
        raise ConfigurationError("name a request, as in `holdfast follow REQUEST`, or a queue with --forget")
    if forget is not None:
        asyncio.run(_forget(forget, request))
        return 0
    with suppress(KeyboardInterrupt):
        return asyncio.run(_follow(request or "", within, as_json))
    return 1


async def _forget(queue: str, request: str | None) -> None:
    async with Following() as following:
        await following.forget(queue, request)
    console().print(f"{request or 'requests from now on'}: {queue} is not waited for", soft_wrap=True)


async def _follow(request: str, within: float | None, as_json: bool) -> int:
    printed: dict[str, Entry] = {}
    async with Following() as following:
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                async for progress in following.watch(request):
                    if not as_json:
                        _print_changes(await following.entries(request), printed)
                    if progress.state == "unknown":
                        break
        entries = await following.entries(request)
    progress = progress_of(entries, datetime.now(UTC).timestamp())
    if as_json:
        print_json(asdict(progress) | {"events": [_plain(entry) for _, entry in _tree(entries)]})
    else:
        _print_changes(entries, printed)
        counts = f"{progress.handled} handled, {progress.open} open, {len(progress.failed)} failed"
        console().print(f"{progress.state}: {counts}", soft_wrap=True)
    return 0 if progress.done else 1


def _print_changes(entries: list[Entry], printed: dict[str, Entry]) -> None:
    for depth, entry in _tree(entries):
        if printed.get(entry.field) != entry:
            printed[entry.field] = entry
            about = " ".join(text for text in (entry.state, entry.detail, _when(entry)) if text)
            console().print(
                f"{'   ' * depth}{entry.event_type} {entry.event_id} {entry.queue}: {about}", soft_wrap=True
            )


def _tree(entries: Iterable[Entry]) -> list[tuple[int, Entry]]:
    """Return each entry below its cause, with its depth."""
    theirs: dict[str, list[Entry]] = {}
    known = {entry.field for entry in entries}
    for entry in sorted(entries, key=lambda entry: entry.field):
        cause = "\0".join(entry.cause)
        theirs.setdefault(cause if cause in known else "", []).append(entry)
    lines: list[tuple[int, Entry]] = []
    todo = [(0, entry) for entry in reversed(theirs.pop("", []))]
    while todo:
        depth, entry = todo.pop()
        lines.append((depth, entry))
        todo += [(depth + 1, below) for below in reversed(theirs.pop(entry.field, []))]
    return lines


def _plain(entry: Entry) -> dict[str, Any]:
    queue, event_id = entry.cause
    return entry._asdict() | {"at": _when(entry), "cause": {"queue": queue, "event_id": event_id}}


def _when(entry: Entry) -> str:
    return "" if entry.at is None else datetime.fromtimestamp(entry.at, UTC).isoformat(timespec="seconds")
