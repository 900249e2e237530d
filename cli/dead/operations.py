"""`holdfast dead replay`, `discard`, `edit` and `import`, and the commands that concern such an operation."""

import asyncio
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import typer

from ...dead_letters import DeadLetters, Edit, Operation, Pace, Selection, target_of
from ...dead_letters.view import letter_json
from ...events import ConfigurationError
from ...telemetry import neutral
from ..words import console, print_json
from .queues import read, with_service
from .rehearsal import reader_of
from .tables import groups_table, operation_line, operations_table, print_json_with


@with_service
async def replay_letters(
    service: DeadLetters, name: str, selection: Selection, pace: Pace, *,
    to: str | None, forced: bool, dry_run: bool, yes: bool, worn: bool, as_json: bool,
) -> int:  # fmt: skip
    queue, index = await read(service, name, worn=worn)
    count = index.count(selection)
    if not count or dry_run:
        return _print_selected(service, queue, selection, "replayed", as_json=as_json)
    question = f"Replay {count:,} letter(s) to {target_of(next(index.letters(selection)), queue, to)}?"
    _confirm(service, queue, selection, question, yes=yes, as_json=as_json)
    operation = service.replay(queue, selection, to=to, forced=forced)
    return await _run_and_report(service, operation, pace, as_json=as_json)


@with_service
async def discard_letters(
    service: DeadLetters, name: str, selection: Selection, *, dry_run: bool, yes: bool, worn: bool, as_json: bool
) -> int:
    queue, index = await read(service, name, worn=worn)
    count = index.count(selection)
    if not count or dry_run:
        return _print_selected(service, queue, selection, "discarded", as_json=as_json)
    question = f"Discard {count:,} letter(s), to an archive?"
    _confirm(service, queue, selection, question, yes=yes, as_json=as_json)
    return await _run_and_report(service, service.discard(queue, selection), Pace(), as_json=as_json)


def edit_letter(
    name: str, key: str, worker: str, body: str | None, headers: list[str], dropped: list[str], *,
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
    return _edit(name, key, worker, new, changes, to=to, wait=wait, yes=yes, worn=worn, as_json=as_json)


@with_service
async def _edit(
    service: DeadLetters, name: str, key: str, worker: str, body: bytes | None, changes: dict[str, str | None], *,
    to: str | None, wait: float, yes: bool, worn: bool, as_json: bool,
) -> int:  # fmt: skip
    queue, index = await read(service, name, worn=worn)
    letters = list(index.letters(Selection(ids=(key,), limit=2)))
    if len(letters) != 1:
        raise ConfigurationError(f"{key!r} means {'no' if not letters else 'more than one'} letter in {queue}")
    letter = letters[0]
    edit = Edit(letter.message.body if body is None else body, changes)
    reader_of(worker, queue, to)(letter, edit)
    question = f"Replay letter {letter.key} as a new event?"
    _confirm(service, queue, Selection(ids=(letter.key,)), question, yes=yes, as_json=as_json)
    operation = service.edit(queue, letter.key, edit, to=to)
    return await _run_and_report(service, operation, Pace(wait=wait), as_json=as_json)


def import_letters(path: Path, *, to: str | None, yes: bool, as_json: bool) -> int:
    if not yes:
        _need_a_person("say --yes", as_json=as_json)
        _ask(f"Put the letters of {path} back into their dead-letter queues?")
    return _import(path, to=to, as_json=as_json)


@with_service
async def _import(service: DeadLetters, path: Path, *, to: str | None, as_json: bool) -> int:
    target = None if to is None else await service.resolve(to)
    begun = await service.restore(path, to=target)
    ended = [await _run(service, operation, Pace(), as_json=as_json) for operation in begun]
    restored, present = (sum(one.counts.get(state, 0) for one in ended) for state in ("restored", "present"))
    if as_json:
        print_json({"imported": restored, "present": present, "operations": [asdict(one) for one in ended]})
    else:
        print(f"{restored:,} letter(s) imported" + (f", {present:,} were there already" if present else ""))
        for one in ended:
            _print_how_to_resume(one)
    return 0 if all(one.state == "done" for one in ended) else 1


@with_service
async def resume_operation(service: DeadLetters, name: str, pace: Pace, *, as_json: bool) -> int:
    return await _run_and_report(service, service.journal.operation(name), pace, as_json=as_json)


@with_service
async def ask_operation(service: DeadLetters, name: str, request: Literal["pause", "cancel"], *, as_json: bool) -> int:
    operation = service.journal.operation(name)
    service.ask(operation, request)
    asked = service.journal.operation(operation.id)
    if as_json:
        print_json(_account(service, asked))
    else:
        print(operation_line(asked))
    return 0


@with_service
async def list_operations(service: DeadLetters, *, as_json: bool) -> int:
    listed = [(operation, service.is_running(operation)) for operation in service.journal.operations()]
    if as_json:
        print_json([asdict(operation) | {"is_running": is_running} for operation, is_running in listed])
    elif listed:
        console().print(operations_table(listed))
    else:
        print("nothing was begun on this machine", file=sys.stderr)
    return 0


def _print_selected(service: DeadLetters, queue: str, selection: Selection, done: str, *, as_json: bool) -> int:
    index = service.index(queue)
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
    service: DeadLetters, queue: str, selection: Selection, question: str, *, yes: bool, as_json: bool
) -> None:  # fmt: skip
    if yes:
        return
    _need_a_person("say --yes, or --dry-run to see what is meant", as_json=as_json)
    console().print(groups_table(service.index(queue).groups(selection)))
    _ask(question)


def _need_a_person(otherwise: str, *, as_json: bool) -> None:
    if as_json or not sys.stdin.isatty():
        raise ConfigurationError(f"standard input is not a terminal, so this cannot be confirmed; {otherwise}")


def _ask(question: str) -> None:
    if not typer.confirm(question):
        raise ConfigurationError("nothing was done")


async def _run_and_report(service: DeadLetters, operation: Operation, pace: Pace, *, as_json: bool) -> int:
    """Carry an operation out and print how it ended. Returns the exit code."""
    ended = await _run(service, operation, pace, as_json=as_json)
    archive = None if ended.kind == "replay" else str(service.archive_of(ended))
    if as_json:
        print_json(_account(service, ended) | {"archive": archive})
    else:
        print(operation_line(ended))
        for item in service.journal.failures(ended.id, 5):
            print(f"  {item.key} {item.state}: {neutral(item.error, 300)}")
        if archive is not None:
            print(f"archive: {archive}")
        _print_how_to_resume(ended)
    good = ended.state == "done" or (ended.state == "waiting" and not pace.wait)
    return 0 if good and not ended.counts.get("failed") else 1


async def _run(service: DeadLetters, operation: Operation, pace: Pace, *, as_json: bool) -> Operation:
    """Carry an operation out under a bar; Ctrl-C pauses it."""
    with _bar(service, operation, as_json=as_json) as tell, _pausing(service, operation):
        return await service.work(operation, pace, tell).run()


def _print_how_to_resume(ended: Operation) -> None:
    if ended.state in ("paused", "stopped", "waiting"):
        print(f"go on with: holdfast dead resume {ended.id}")


def _account(service: DeadLetters, operation: Operation) -> dict[str, Any]:
    failures = [asdict(item) for item in service.journal.failures(operation.id)]
    return {"operation": asdict(operation) | {"unconfirmed": operation.unconfirmed}, "failures": failures}


@contextmanager
def _bar(service: DeadLetters, operation: Operation, *, as_json: bool) -> Iterator[Callable[[], None]]:
    """Show on a terminal how many letters have their outcome. Gives the function that updates the bar."""
    if as_json or not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    progress = Progress(*columns, console=Console(stderr=True, highlight=False), transient=True)
    task = progress.add_task(operation.kind, total=operation.total)

    def tell() -> None:
        now = service.journal.operation(operation.id)
        progress.update(task, completed=now.total - now.left - now.unconfirmed, description=_short(now))

    with progress:
        yield tell


def _short(operation: Operation) -> str:
    counts = " · ".join(f"{count} {state}" for state, count in operation.counts.items() if count and state != "waiting")
    return f"{operation.kind} {counts} {neutral(operation.detail, 60)}"


@contextmanager
def _pausing(service: DeadLetters, operation: Operation) -> Iterator[None]:
    """Pause the operation on the first Ctrl-C or SIGTERM, when the letters in flight are done; the second one ends."""
    loop, signals = asyncio.get_running_loop(), (signal.SIGINT, signal.SIGTERM)

    def pause() -> None:
        service.journal.ask(operation.id, "pause")
        for number in signals:
            loop.remove_signal_handler(number)

    for number in signals:
        loop.add_signal_handler(number, pause)
    try:
        yield
    finally:
        for number in signals:
            loop.remove_signal_handler(number)
