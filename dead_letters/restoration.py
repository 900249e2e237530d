"""The import of an archive: its letters are put back into their dead-letter queue, unless they are in it."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

from ..events import BrokerUnavailable, Message
from ..events import headers as h
from .archive import lines_of
from .letter import Keys, Letter, read_letter
from .reader import Shelf, reading
from .runner import BATCH, HOLD, OperationRunner, Stopped, raise_any


class RestoreRunner(OperationRunner):
    """Carries an import out. It holds the queue while it does: what two imports bring is in the queue once."""

    async def _pass(self) -> bool:
        queue, name, journal = self.operation.queue, self.name, self.journal
        until = asyncio.get_running_loop().time() + HOLD
        async with reading(self.broker, queue, self.index, worn_too=True) as shelf:
            journal.change(name, "running")
            await self._take_back(shelf)
            left = journal.left(name)
            is_sure = all(item.published or item.key in shelf.tags for item in left if item.state == "sending")
            there, brought = len(shelf.tags), 0
            ours = [item for item in left if item.published or (item.state == "sending" and item.key in shelf.tags)]
            journal.took(name, [item.key for item in ours], "restored")
            journal.took(name, [item.key for item in left if item.key in shelf.tags], "present")
            for batch in self._missing():
                done, trouble = await self._act(batch)
                journal.took(name, done, self.after)
                brought += len(done)
                self.tell()
                raise_any(trouble)
                self._heed()
                if asyncio.get_running_loop().time() > until:
                    break
        return is_sure and (not brought or await self._holds(there + brought))

    async def _holds(self, expected: int) -> bool:
        """Whether no more is there than was, and was brought. (What a lost connection left open is published again.) It
        is not sure of a queue that counts as empty, as one without a leader does."""
        depth = await self.broker.count(self.operation.queue)
        return depth is not None and not depth.consumers and 0 < depth.ready <= expected

    async def _take_back(self, shelf: Shelf) -> None:
        """What was on its way when a connection was lost may arrive after it was published again. Two letters with the
        same mark of this import are one: the later one goes."""
        seen, twice = set[str](), list[str]()
        for key in shelf.tags:
            if "-" not in key and f"{key}-2" not in shelf.tags:
                continue  # nothing is like it
            letter = self.index.get(key)
            mark = letter and letter.message.headers.get(h.RESTORED)
            if isinstance(mark, str) and mark.startswith(f"{self.name}/"):
                if mark in seen:
                    twice.append(key)
                seen.add(mark)
        if twice and not await shelf.remove(twice):
            raise BrokerUnavailable("the connection was lost")

    def _missing(self) -> Iterator[list[Letter]]:
        """The letters that are still to be restored, in portions."""
        path, queue = Path(self.operation.options["path"]), self.operation.queue
        wanted = {item.key for item in self.journal.left(self.name)}
        batch: list[Letter] = []
        for position, (key, message) in enumerate(letters_for(path, queue, self.operation.options["to"]), 1):
            if key in wanted:
                wanted.remove(key)
                batch.append(read_letter(message, key=key, position=position, names=self.index.names))
                if len(batch) == BATCH:
                    yield batch
                    batch = []
        if batch:
            yield batch
        if wanted:
            raise Stopped(f"{path} no longer holds {len(wanted)} of its letters")


def letters_for(path: Path, queue: str, to: str | None) -> Iterator[tuple[str, Message]]:
    """The letters of an archive that go to this queue (all of them where they go `to` it), with their keys there."""
    keys = Keys()
    for named, message in lines_of(path):
        if to or named == queue:
            yield keys.next(message), message
