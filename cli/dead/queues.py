"""`holdfast dead list`, `show` and `export`, and what every command begins with: the service, a queue that was read."""

import asyncio
import sqlite3
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import asdict
from functools import wraps
from itertools import islice
from pathlib import Path
from typing import Concatenate, ParamSpec

from rich.console import Console

from ...broker import open_broker
from ...config import LogSettings, load_settings
from ...dead_letters import DeadLetters, Index, Selection
from ...dead_letters.view import age, letter_json
from ...events import BrokerUnavailable, ConfigurationError, HoldfastError
from ...telemetry import configure_logging
from ..words import console, print_json
from .tables import groups_table, letters_table, print_json_with, print_letter, queues_table

P = ParamSpec("P")
CONNECT_WITHIN = 15.0
_SHOWN = 20


@asynccontextmanager
async def open_service() -> AsyncIterator[DeadLetters]:
    """Open the dead letters of the broker that the settings name. Raises `BrokerUnavailable` where it does not answer,
    `HoldfastError` where the files of the tools cannot be read or written."""
    settings = load_settings()
    configure_logging(LogSettings(level="CRITICAL"))
    broker = await open_broker(settings, lambda fact: None)
    try:
        with closing(DeadLetters(settings, broker)) as service:
            try:
                async with asyncio.timeout(CONNECT_WITHIN):
                    await broker.count("holdfast.queues")
            except TimeoutError:
                raise BrokerUnavailable("the broker does not answer") from None
            yield service
    except sqlite3.Error as error:
        files = "the files of the dead-letter tools, in HOLDFAST_DEAD_LETTERS__FOLDER"
        raise HoldfastError(f"{files}: {error}") from error
    finally:
        await broker.close()


def with_service(command: Callable[Concatenate[DeadLetters, P], Awaitable[int]]) -> Callable[P, int]:
    """Make a function of a command that runs it with the service, which is its first argument."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> int:
        async def with_it() -> int:
            async with open_service() as service:
                return await command(service, *args, **kwargs)

        return asyncio.run(with_it())

    return run


async def read(service: DeadLetters, name: str, *, cached: bool = False, worn: bool = False) -> tuple[str, Index]:
    """Return the dead-letter queue that a name means and its index, freshly read unless `cached`. On a terminal a
    count runs."""
    queue = await service.resolve(name)
    if cached and service.index(queue).read_at is not None:
        return queue, service.index(queue)
    error = Console(stderr=True, highlight=False)
    if not error.is_terminal:
        return queue, await service.read(queue, worn_too=worn)
    with error.status(f"reading {queue}") as status:
        return queue, await service.read(
            queue, worn_too=worn, tell=lambda count: status.update(f"reading {queue}: {count:,} letters")
        )


@with_service
async def list_queues(service: DeadLetters, names: list[str], *, as_json: bool) -> int:
    queues = await service.queues(names)
    if as_json:
        print_json([asdict(queue) for queue in queues])
    elif not queues:
        print("no worker has told this broker of its queues; name one: holdfast dead list QUEUE", file=sys.stderr)
    else:
        console().print(queues_table(queues))
    return 0


@with_service
async def show_queue(
    service: DeadLetters, name: str, selection: Selection, *, cached: bool, worn: bool, as_json: bool
) -> int:
    queue, index = await read(service, name, cached=cached, worn=worn)
    groups, notes, total = index.groups(selection), service.journal.notes(queue), index.count(selection)
    if as_json:
        noted = {kind: note.text for kind, note in notes.items()}
        about = {"queue": queue, "groups": [asdict(group) for group in groups], "notes": noted}
        print_json_with(about, "letters", (letter_json(letter) for letter in index.letters(selection)))
        return 0
    at = console()
    at.print(f"{queue}: {total:,} letter(s), read {age(index.read_at)} ago")
    if not total:
        return 0
    at.print(groups_table(groups))
    at.print(letters_table(islice(index.letters(selection), _SHOWN)))
    if total > _SHOWN:
        at.print(f"... and {total - _SHOWN:,} more; narrow them down, or use --json")
    return 0


@with_service
async def show_letter(service: DeadLetters, name: str, key: str, *, cached: bool, worn: bool, as_json: bool) -> int:
    queue, index = await read(service, name, cached=cached, worn=worn)
    letters = list(index.letters(Selection(ids=(key,), limit=20)))
    if not letters:
        raise ConfigurationError(f"there is no letter {key!r} in {queue}")
    if as_json:
        print_json([letter_json(letter, whole=True) for letter in letters])
    elif len(letters) > 1:
        console().print(letters_table(letters))
    else:
        print_letter(letters[0], console())
    return 0


@with_service
async def export_letters(
    service: DeadLetters, name: str, selection: Selection, path: Path, *, worn: bool, as_json: bool
) -> int:
    queue, _ = await read(service, name, worn=worn)
    count = service.export(queue, selection, path)
    if as_json:
        print_json({"queue": queue, "exported": count, "file": str(path)})
    else:
        print(f"{count:,} letter(s) of {queue} written to {path}; they are still in the queue")
    return 0
