"""`holdfast dead export` and `import`."""

import asyncio
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Final

import typer

from ...dead_letters import ItemState, Pace, Selection
from ...events import ConfigurationError
from ..words import print_json
from .operate import carry_out, tell_what_is_left
from .session import a_desk, read

_IMPORTED: Final[tuple[ItemState, ItemState]] = ("restored", "present")


def export_letters(name: str, selection: Selection, path: Path, *, worn: bool, as_json: bool) -> int:
    async def command() -> int:
        async with a_desk() as desk:
            queue, _ = await read(desk, name, worn=worn)
            count = desk.export(queue, selection, path)
        if as_json:
            print_json({"queue": queue, "exported": count, "file": str(path)})
        else:
            print(f"{count:,} letter(s) of {queue} written to {path}; they are still in the queue")
        return 0

    return asyncio.run(command())


def import_letters(path: Path, *, to: str | None, yes: bool, as_json: bool) -> int:
    if not yes:
        if as_json or not sys.stdin.isatty():
            raise ConfigurationError("nobody is there to confirm this; say --yes")
        if not typer.confirm(f"Put the letters of {path} back into their dead-letter queues?"):
            raise ConfigurationError("nothing was done")

    async def command() -> int:
        async with a_desk() as desk:
            target = None if to is None else await desk.resolve(to)
            begun = await desk.restore(path, to=target)
            ended = [await carry_out(desk, operation, Pace(), as_json=as_json) for operation in begun]
        restored, present = (sum(one.counts.get(state, 0) for one in ended) for state in _IMPORTED)
        if as_json:
            print_json({"imported": restored, "present": present, "operations": [asdict(one) for one in ended]})
        else:
            print(f"{restored:,} letter(s) imported" + (f", {present:,} were there already" if present else ""))
            for one in ended:
                tell_what_is_left(one)
        return 0 if all(one.state == "done" for one in ended) else 1

    return asyncio.run(command())
