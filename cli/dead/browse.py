"""`holdfast dead list` and `show`."""

import asyncio
import sys
from dataclasses import asdict
from itertools import islice
from typing import Any

from ...dead_letters import Letter, Selection
from ...dead_letters.archive import to_json
from ...events import ConfigurationError
from ..words import console, print_json
from .session import a_desk, read
from .words import age, groups_table, letters_table, places_table, print_json_with, print_letter

_SHOWN = 20


def list_places(names: list[str], *, as_json: bool) -> int:
    async def command() -> int:
        async with a_desk() as desk:
            found = await desk.places(names)
        if as_json:
            print_json([asdict(place) for place in found])
        elif not found:
            print("no worker has told this broker of its queues; name one: holdfast dead list QUEUE", file=sys.stderr)
        else:
            console().print(places_table(found))
        return 0

    return asyncio.run(command())


def show_queue(name: str, selection: Selection, *, cached: bool, worn: bool, as_json: bool) -> int:
    async def command() -> int:
        async with a_desk() as desk:
            queue, index = await read(desk, name, cached=cached, worn=worn)
            groups, notes, total = index.groups(selection), desk.journal.notes(queue), index.count(selection)
            if as_json:
                noted = {kind: note.text for kind, note in notes.items()}
                told = {"queue": queue, "groups": [asdict(group) for group in groups], "notes": noted}
                print_json_with(told, "letters", (letter_json(letter) for letter in index.letters(selection)))
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

    return asyncio.run(command())


def show_letter(name: str, wanted: str, *, cached: bool, worn: bool, as_json: bool) -> int:
    async def command() -> int:
        async with a_desk() as desk:
            queue, index = await read(desk, name, cached=cached, worn=worn)
            found = list(index.letters(Selection(ids=(wanted,), limit=20)))
        if not found:
            raise ConfigurationError(f"there is no letter {wanted!r} in {queue}")
        if as_json:
            print_json([letter_json(letter, whole=True) for letter in found])
        elif len(found) > 1:
            console().print(letters_table(found))
        else:
            print_letter(found[0], console())
        return 0

    return asyncio.run(command())


def letter_json(letter: Letter, *, whole: bool = False) -> dict[str, Any]:
    """A letter for programs; `whole` adds the message and the traceback."""
    told = {
        "id": letter.key,
        "position": letter.position,
        "event_id": letter.event_id,
        "event_type": letter.event_type,
        "version": letter.version,
        "reason": letter.reason,
        "handler": letter.handler,
        "queue": letter.target,
        "error_type": letter.error_type,
        "error_message": letter.error_message,
        "fingerprint": letter.fingerprint,
        "attempt": letter.attempt,
        "first_failed_at": letter.first_failed_at,
        "failed_at": letter.failed_at,
        "worker": letter.worker,
        "replayed": letter.replayed,
        "bytes": len(letter.message.body),
    }
    if whole:
        told |= {"traceback": letter.traceback, "chain": letter.chain, "message": to_json(letter.message)}
    return told
