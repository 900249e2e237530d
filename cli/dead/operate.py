"""`holdfast dead replay`, `discard`, `edit`, and what concerns operations under way."""

import asyncio
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ...dead_letters import DeadLetters, Edit, Operation, Pace, Selection, target_of
from ...events import ConfigurationError
from ...telemetry import neutral
from ..words import console, print_json
from .browse import letter_json
from .session import a_desk, read
from .tryout import reader_of
from .words import groups_table, operation_words, print_json_with


def replay_letters(
    name: str, selection: Selection, pace: Pace, *,
    to: str | None, forced: bool, dry_run: bool, yes: bool, worn: bool, as_json: bool,
) -> int:  # fmt: skip
    async def command() -> int:
        async with a_desk() as desk:
            queue, index = await read(desk, name, worn=worn)
            count = index.count(selection)
            if not count or dry_run:
                return _meant(desk, queue, selection, "replayed", as_json=as_json)
            first = next(index.letters(selection))
            where = target_of(first, queue, to)
            _confirm(desk, queue, selection, f"Replay {count:,} letter(s) to {where}?", yes=yes, as_json=as_json)
            operation = desk.replay(queue, selection, to=to, forced=forced)
            return await _carry_out(desk, operation, pace, as_json=as_json)

    return asyncio.run(command())


def discard_letters(
    name: str, selection: Selection, *, dry_run: bool, yes: bool, worn: bool, as_json: bool
) -> int:  # fmt: skip
    async def command() -> int:
        async with a_desk() as desk:
            queue, index = await read(desk, name, worn=worn)
            count = index.count(selection)
            if not count or dry_run:
                return _meant(desk, queue, selection, "discarded", as_json=as_json)
            _confirm(desk, queue, selection, f"Discard {count:,} letter(s), to an archive?", yes=yes, as_json=as_json)
            return await _carry_out(desk, desk.discard(queue, selection), Pace(), as_json=as_json)

    return asyncio.run(command())


def edit_letter(
    name: str, wanted: str, worker: str, body: str | None, headers: list[str], dropped: list[str], *,
    to: str | None, wait: float, yes: bool, worn: bool, as_json: bool,
) -> int:  # fmt: skip
    changes: dict[str, str | None] = dict.fromkeys(dropped)
    for text in headers:
        header, equals, value = text.partition("=")
        if not equals:
            raise ConfigurationError(f"--header {text!r} is not NAME=VALUE")
        changes[header] = value
    new = None if body is None else sys.stdin.buffer.read() if body == "-" else Path(body).read_bytes()
    if new is None and not changes:
        raise ConfigurationError("nothing is different; give --body, --header or --no-header")

    async def command() -> int:
        async with a_desk() as desk:
            queue, index = await read(desk, name, worn=worn)
            found = list(index.letters(Selection(ids=(wanted,), limit=2)))
            if len(found) != 1:
                raise ConfigurationError(f"{wanted!r} means {'no' if not found else 'more than one'} letter in {queue}")
            edit = Edit(found[0].message.body if new is None else new, changes)
            reader_of(worker, queue, to)(found[0], edit)
            question = f"Replay letter {found[0].key} as a new event?"
            _confirm(desk, queue, Selection(ids=(found[0].key,)), question, yes=yes, as_json=as_json)
            operation = desk.edit(queue, found[0].key, edit, to=to)
            return await _carry_out(desk, operation, Pace(wait=wait), as_json=as_json)

    return asyncio.run(command())


def resume_operation(name: str, pace: Pace, *, as_json: bool) -> int:
    async def command() -> int:
        async with a_desk() as desk:
            return await _carry_out(desk, desk.journal.operation(name), pace, as_json=as_json)

    return asyncio.run(command())


def _meant(desk: DeadLetters, queue: str, selection: Selection, done: str, *, as_json: bool) -> int:
    """What would be done."""
    index = desk.index(queue)
    if as_json:
        letters = (letter_json(letter) for letter in index.letters(selection))
        print_json_with({"queue": queue, "dry_run": True}, "letters", letters)
        return 0
    count = index.count(selection)
    print(f"{count:,} letter(s) of {neutral(queue)} would be {done}")
    if count:
        console().print(groups_table(index.groups(selection)))
    return 0


def _confirm(
    desk: DeadLetters, queue: str, selection: Selection, question: str, *, yes: bool, as_json: bool
) -> None:  # fmt: skip
    """Ask. Whoever is not there to answer has to say --yes."""
    if yes:
        return
    if as_json or not sys.stdin.isatty():
        raise ConfigurationError("nobody is there to confirm this; say --yes, or --dry-run to see what is meant")
    console().print(groups_table(desk.index(queue).groups(selection)))
    if not typer.confirm(question):
        raise ConfigurationError("nothing was done")


async def carry_out(desk: DeadLetters, operation: Operation, pace: Pace, *, as_json: bool) -> Operation:
    """Carry an operation out under a bar; Ctrl-C pauses it."""
    with _showing(desk, operation, as_json=as_json) as tell, _pausing(desk, operation):
        return await desk.work(operation, pace, tell).run()


def tell_what_is_left(ended: Operation) -> None:
    """For people: why an operation is not done, and how it goes on."""
    if ended.state in ("paused", "stopped", "waiting"):
        print(f"go on with: holdfast dead resume {ended.id}")


async def _carry_out(desk: DeadLetters, operation: Operation, pace: Pace, *, as_json: bool) -> int:
    """Carry it out and tell how it ended. Returns the exit code."""
    ended = await carry_out(desk, operation, pace, as_json=as_json)
    archive = None if ended.kind == "replay" else str(desk.archive_of(ended))
    if as_json:
        print_json(account(desk, ended) | {"archive": archive})
    else:
        print(operation_words(ended))
        for item in desk.journal.failures(ended.id, 5):
            print(f"  {item.key} {item.state}: {neutral(item.error, 300)}")
        if archive is not None:
            print(f"archive: {archive}")
        tell_what_is_left(ended)
    good = ended.state == "done" or (ended.state == "waiting" and not pace.wait)
    return 0 if good and not ended.counts.get("failed") else 1


def account(desk: DeadLetters, operation: Operation) -> dict[str, Any]:
    failures = [asdict(item) for item in desk.journal.failures(operation.id)]
    return {"operation": asdict(operation) | {"unconfirmed": operation.unconfirmed}, "failures": failures}


@contextmanager
def _showing(desk: DeadLetters, operation: Operation, *, as_json: bool) -> Iterator[Callable[[], None]]:
    """A bar on a terminal: how many letters have their outcome."""
    error = Console(stderr=True, highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    progress = Progress(*columns, console=error, transient=True, disable=not error.is_terminal or as_json)
    task = progress.add_task(operation.kind, total=operation.total)

    def tell() -> None:
        if not progress.disable:
            now = desk.journal.operation(operation.id)
            progress.update(task, completed=now.total - now.left - now.unconfirmed, description=_short(now))

    with progress:
        yield tell


def _short(operation: Operation) -> str:
    counts = " · ".join(f"{count} {state}" for state, count in operation.counts.items() if count and state != "waiting")
    return f"{operation.kind} {counts} {neutral(operation.detail, 60)}"


@contextmanager
def _pausing(desk: DeadLetters, operation: Operation) -> Iterator[None]:
    """The first Ctrl-C (or SIGTERM) pauses when what is on its way is done; the second one ends."""
    loop, signals = asyncio.get_running_loop(), (signal.SIGINT, signal.SIGTERM)

    def pause() -> None:
        desk.journal.ask(operation.id, "pause")
        for number in signals:
            loop.remove_signal_handler(number)

    for number in signals:
        loop.add_signal_handler(number, pause)
    try:
        yield
    finally:
        for number in signals:
            loop.remove_signal_handler(number)
