"""The three things that can be done to letters in a queue: each makes an outcome durable, then they may be removed."""

import asyncio
import base64
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from ..broker import Broker
from ..events import HoldfastError, Message
from .archive import from_line, to_line
from .journal import ItemState, Operation
from .letter import Letter
from .remake import Edit, edited, edited_id, replayed, target_of

_PUBLISH = 30.0


class Action(Protocol):
    """`after` is the state of a letter it has been done to."""

    after: ItemState

    async def __call__(self, letters: Sequence[Letter]) -> list[HoldfastError | None]:
        """Make the outcome of each letter durable. What went wrong with each, None where nothing did."""
        ...


class Replay:
    """Publish each letter to the queue it died in, confirmed."""

    after: ItemState = "sent"

    def __init__(self, broker: Broker, operation: Operation) -> None:
        self._broker = broker
        self._operation = operation

    async def __call__(self, letters: Sequence[Letter]) -> list[HoldfastError | None]:
        return list(await asyncio.gather(*(self._publish(letter) for letter in letters)))

    async def _publish(self, letter: Letter) -> HoldfastError | None:
        try:
            await self._broker.publish(self._message(letter), timeout=_PUBLISH)
        except HoldfastError as error:
            return error
        return None

    def _message(self, letter: Letter) -> Message:
        operation, options = self._operation, self._operation.options
        target = target_of(letter, operation.queue, options.get("to"))
        return replayed(letter, operation=operation.id, target=target, forced=bool(options.get("forced")))


class EditAndReplay(Replay):
    """Archive the original, then publish the event that is made of it."""

    def __init__(self, broker: Broker, operation: Operation, archive: Path) -> None:
        super().__init__(broker, operation)
        self._archive = Archive(archive, operation)

    async def __call__(self, letters: Sequence[Letter]) -> list[HoldfastError | None]:
        self._archive.keep(letters, edited_as={letter.key: edited_id(letter, self._operation.id) for letter in letters})
        return await super().__call__(letters)

    def _message(self, letter: Letter) -> Message:
        operation, options = self._operation, self._operation.options
        edit = Edit(base64.b64decode(options["body"]), options["headers"])
        target = target_of(letter, operation.queue, options.get("to"))
        return edited(letter, edit, operation=operation.id, target=target)


class Discard:
    """Write each letter to the archive, on disk."""

    after: ItemState = "removed"

    def __init__(self, operation: Operation, archive: Path) -> None:
        self._archive = Archive(archive, operation)

    async def __call__(self, letters: Sequence[Letter]) -> list[HoldfastError | None]:
        self._archive.keep(letters)
        return [None] * len(letters)


class Archive:
    """A file of letters, one per line, each once however often an operation begins again."""

    def __init__(self, path: Path, operation: Operation) -> None:
        self._path = path
        self._operation = operation
        self._kept = _mended(path) if path.exists() else set[str]()

    def keep(self, letters: Sequence[Letter], edited_as: dict[str, str] | None = None) -> None:
        """Return once the letters are on disk."""
        now = datetime.now(UTC).isoformat()
        lines = []
        for letter in letters:
            if letter.key not in self._kept:
                about = {"key": letter.key, "queue": self._operation.queue, "archived_at": now}
                about["operation"] = self._operation.id
                if edited_as:
                    about["edited_as"] = edited_as[letter.key]
                lines.append(to_line(letter.message, **about).encode())
                self._kept.add(letter.key)
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "ab") as file:
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())


def _mended(path: Path) -> set[str]:
    """The keys of the letters in an archive; a last line that was cut off half-way is taken away."""
    keys, whole = set(), 0
    with path.open("rb+") as file:
        for line in file:
            if not line.endswith(b"\n"):
                file.truncate(whole)
                break
            whole += len(line)
            keys.add(str(from_line(line)[1].get("key")))
    return keys
