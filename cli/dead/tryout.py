"""Letters against today's code: `holdfast dead check`, and the check before an edit."""

import asyncio
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import asdict, replace
from datetime import UTC, datetime

from ...consumer import HandlerSpec
from ...dead_letters import Edit, Forecast, Letter, Rehearsal, Selection, forecast, target_of
from ...events import ConfigurationError, read_incoming
from ...telemetry import neutral
from ..load import load_worker
from ..words import console, print_json
from .rehearsal import rehearse
from .session import a_desk, read
from .words import forecast_lines


def handler_of(worker: str, queue: str) -> HandlerSpec:
    """The handler that takes messages of a queue. Raises `ConfigurationError`."""
    specs = {spec.queue: spec for spec in load_worker(worker).handlers}
    if queue not in specs:
        raise ConfigurationError(f"{worker} has no handler for queue {queue!r}; it has {', '.join(specs)}")
    return specs[queue]


def reader_of(worker: str, dead_queue: str, to: str | None) -> Callable[[Letter, Edit | None], None]:
    """A function that reads a letter, edited or not, as its handler would. It raises `DecodeError`."""
    specs: dict[str, HandlerSpec] = {}

    def read_it(letter: Letter, edit: Edit | None = None) -> None:
        target = target_of(letter, dead_queue, to)
        if target not in specs:
            specs[target] = handler_of(worker, target)
        message = letter.message if edit is None else replace(letter.message, body=edit.body)
        incoming = read_incoming(message, datetime.now(UTC))
        metadata = replace(incoming.metadata, event_type=letter.event_type)
        specs[target].read(replace(incoming, metadata=metadata))

    return read_it


def check_letters(
    name: str, selection: Selection, worker: str, *, run: bool, cached: bool, worn: bool, as_json: bool
) -> int:  # fmt: skip
    async def command() -> int:
        async with a_desk() as desk:
            queue, index = await read(desk, name, cached=cached, worn=worn)
            if not index.count(selection):
                raise ConfigurationError(f"no letter in {queue} is meant by that")
            reads = reader_of(worker, queue, None)
            found = forecast(index.letters(selection), lambda letter: reads(letter, None))
            rehearsed: Rehearsal | None = None
            if run:
                spec = handler_of(worker, target_of(next(index.letters(selection)), queue))
                with redirect_stdout(sys.stderr):  # what the handler prints is no part of what programs read
                    rehearsed = await rehearse(worker, spec, list(index.letters(selection)))
        _tell(found, rehearsed, as_json=as_json)
        return 0 if not found.unreadable and not (rehearsed and rehearsed.failed) else 1

    return asyncio.run(command())


def _tell(found: Forecast, rehearsed: Rehearsal | None, *, as_json: bool) -> None:
    if as_json:
        told = {"readable": found.readable, "unreadable": found.unreadable}
        findings = [asdict(finding) for finding in found.findings]
        print_json(told | {"findings": findings, "run": None if rehearsed is None else asdict(rehearsed)})
        return
    at = console()
    for line in forecast_lines(found):
        at.print(line, soft_wrap=True)
    if rehearsed is not None:
        at.print(f"run: {rehearsed.handled} would be handled, {rehearsed.failed} would not")
        for error, count in Counter(rehearsed.errors).most_common():
            at.print(f"  {count} x {neutral(error, 1000)}", soft_wrap=True)
        published = ", ".join(f"{count} {neutral(kind, 120)}" for kind, count in sorted(rehearsed.published.items()))
        at.print(f"  caught what it published: {published or 'nothing'}")
