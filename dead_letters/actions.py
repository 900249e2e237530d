"""The actions on letters in a queue: each makes an outcome durable, then the letters may be removed."""

import asyncio
import base64
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from ..broker import Broker
from ..events import HoldfastError, Message
from .archive import keys_in, to_line, write_lines
from .journal import ItemState, Operation
from .letter import Letter
from .replay import Edit, edited, edited_id, replayed, target_of

_PUBLISH = 30.0


class Action(Protocol):
    """`after` is the state of a letter it has been done to."""

    after: ItemState

    async def __call__(self, letters: Sequence[Letter]) -> list[HoldfastError | None]:
        """Make the outcome of each letter durable. Returns the error of each, or None."""
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
        self._archive = _Archive(archive, operation)

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
        self._archive = _Archive(archive, operation)

    async def __call__(self, letters: Sequence[Letter]) -> list[HoldfastError | None]:
        self._archive.keep(letters)
        return [None] * len(letters)


class _Archive:
    """The file to which an operation writes letters, each once however often it begins again."""

    def __init__(self, path: Path, operation: Operation) -> None:
        self._path = path
        self._operation = operation
        self._kept = keys_in(path) if path.exists() else set[str]()

    def keep(self, letters: Sequence[Letter], edited_as: Mapping[str, str] | None = None) -> None:
        """Return once the letters are on disk. `edited_as` has the event ids that edits make of them, by key."""
        about = {"queue": self._operation.queue, "archived_at": datetime.now(UTC).isoformat()}
        about["operation"] = self._operation.id
        lines = []
        for letter in letters:
            if letter.key not in self._kept:
                edit = {"edited_as": edited_as[letter.key]} if edited_as else {}
                lines.append(to_line(letter.message, key=letter.key, **about, **edit))
                self._kept.add(letter.key)
        write_lines(self._path, lines, append=True)
