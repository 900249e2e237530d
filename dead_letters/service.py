"""`DeadLetters`: everything that can be done to dead letters, for the command line and the page alike."""

import base64
import getpass
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeAlias

from ..broker import Broker, Depth
from ..config import Settings
from ..events import ConfigurationError, QueueInUse
from .actions import action_of
from .archive import from_line, lines_of, to_line
from .files import file_name, folder_of, is_locked, write_lines
from .index import Chosen, Index
from .operations import Journal, Kind, Operation, Request
from .outage import Outage
from .queues import DeadQueue, known_queues, resolve, several
from .reader import WornOut, reading
from .replay import Edit, target_of
from .restoration import RestoreRunner, letters_for
from .runner import OperationRunner, Pace
from .selection import Selection

Tell = Callable[[], None]
Letters: TypeAlias = Selection | Chosen
"""What an operation is to work on: letters that are selected, by the last reading, or that were chosen before."""

SOON_READ = 5_000


class DeadLetters:
    """The dead letters of one broker. What has to outlive the process is in a folder of files only their owner reads:
    an index per queue, the journal of operations, the archives. `by` is who the audit log names. Names mean queues of
    dead letters, or any with `any_queue`. What `outage` knows of the connection is said at once."""

    def __init__(
        self, settings: Settings, broker: Broker, *, by: str | None = None, any_queue: bool = False,
        outage: Outage | None = None,
    ) -> None:  # fmt: skip
        self.settings = settings
        self.broker = broker
        self.any_queue = any_queue
        self.outage = outage or Outage()
        self.by = by or _whoever()
        self.folder = folder_of(settings)
        self._names = settings.worker.names
        (self.folder / "archive").mkdir(mode=0o700, parents=True, exist_ok=True)
        self.journal = Journal(self.folder / "journal.sqlite")
        self._indexes: dict[str, Index] = {}

    def close(self) -> None:
        for index in self._indexes.values():
            index.close()
        self.journal.close()

    async def queues(self, names: Iterable[str] = ()) -> list[DeadQueue]:
        """Return the dead-letter queues of these names, or all that workers have registered.

        A queue with a few thousand letters is read, unless it holds as many as at the last reading. (To look at its
        first letter alone would put that last: RabbitMQ returns it to the end.)"""
        self.outage.check()
        known = {await self.resolve(name): "" for name in names} or await known_queues(self.broker)

        async def look(name: str) -> DeadQueue | None:
            depth = await self.broker.count(name)
            if names and depth == Depth(0, 0):  # as one without a leader counts, which cannot be read
                with suppress(QueueInUse, WornOut):
                    await self.read(name)
                depth = await self.broker.count(name)
            return None if depth is None else await self.look(name, depth, known[name])

        queues = await several(look, known, at_a_time=8)
        return [queue for queue in queues.values() if queue is not None]

    async def look(self, queue: str, depth: Depth, worker: str = "") -> DeadQueue:
        """Return a dead-letter queue with its depth. One with a few thousand letters is read if that has changed."""
        if depth.consumers or not depth.ready:
            return DeadQueue(queue, depth.ready, None, is_read=depth.consumers > 0, worker=worker)
        if depth.ready <= SOON_READ and depth.ready != self.index(queue).count():
            with suppress(QueueInUse, WornOut):
                await self.read(queue)
        return DeadQueue(queue, depth.ready, self.index(queue).oldest(), worker=worker)

    async def resolve(self, name: str) -> str:
        """Return the dead-letter queue that a name means. Raises `TopologyMissing`, `BrokerUnavailable`."""
        self.outage.check()
        return await resolve(self.broker, name, any_queue=self.any_queue)

    def index(self, queue: str) -> Index:
        """The index of a dead-letter queue as it was last read."""
        if queue not in self._indexes:
            self._indexes[queue] = Index(self._index_file(queue), self._names)
        return self._indexes[queue]

    async def read(self, queue: str, *, tell: Callable[[int], None] = lambda n: None, worn_too: bool = False) -> Index:
        """Read the queue into its index."""
        with self.own_index(queue) as own:  # what is being written is not seen by who reads
            async with reading(self.broker, queue, own, tell=tell, worn_too=worn_too):
                pass
        return self.index(queue)

    def own_index(self, queue: str) -> closing[Index]:
        """The same, opened again: for another thread, or for what takes longer than one turn of the loop."""
        return closing(Index(self._index_file(queue), self._names))

    def _index_file(self, queue: str) -> Path:
        return self.folder / f"{file_name(queue)}.index.sqlite"

    def replay(self, queue: str, letters: Letters, *, to: str | None = None, forced: bool = False) -> Operation:
        """Fix the set of letters to replay. Nothing is touched before `work`."""
        return self._begin("replay", queue, letters, {"to": to, "forced": forced})

    def discard(self, queue: str, letters: Letters) -> Operation:
        """Fix the set of letters to discard. `archive_of` says where they will be kept."""
        return self._begin("discard", queue, letters, {})

    def edit(self, queue: str, key: str, edit: Edit, *, to: str | None = None) -> Operation:
        """Fix what one letter is to become."""
        return self.edit_each(queue, Selection(id=(self.index(queue).only(key).key,)), edit, to=to)

    def edit_each(self, queue: str, letters: Letters, edit: Edit, *, to: str | None = None) -> Operation:
        """Fix what each of the letters is to become."""
        body = None if edit.body is None else base64.b64encode(edit.body).decode()
        options = {"body": body, "headers": dict(edit.headers), "find": edit.find, "put": edit.put, "to": to}
        return self._begin("edit", queue, letters, options)

    def _begin(self, kind: Kind, queue: str, letters: Letters, options: Mapping[str, object]) -> Operation:
        chosen = letters if isinstance(letters, Chosen) else self.index(queue).choose(letters)
        if chosen.first is None:
            raise ConfigurationError(f"no letter in {queue} matches")
        if kind != "discard":
            target_of(chosen.first, queue, str(options["to"]) if options.get("to") else None)
        return self.journal.begin(kind, queue, chosen.letters, by=self.by, options=options, spared=chosen.alike)

    def archive_of(self, operation: Operation) -> Path:
        """The file in which an operation keeps what it takes away; with an import, where it takes it from."""
        if operation.kind == "import":
            return Path(operation.options["path"])
        return self.folder / "archive" / f"{file_name(operation.queue)}.{operation.id}.ndjson"

    def edited_as(self, operation: Operation) -> str:
        """The id of the event that the edit of one letter has made, as its archive tells."""
        if operation.kind != "edit" or operation.total > 1 or not (path := self.archive_of(operation)).exists():
            return ""
        with path.open("rb") as file:
            return next((str(from_line(line)[1].get("edited_as")) for line in file if line.endswith(b"\n")), "")

    def work(self, operation: Operation, pace: Pace = Pace(), tell: Tell = lambda: None) -> OperationRunner:  # noqa: B008 (frozen)
        """Return the runner that goes on with the operation. Raises `ConfigurationError` where it is over."""
        if operation.state in ("cancelled", "done"):
            raise ConfigurationError(f"{operation.id} is {operation.state}")
        action = action_of(operation, self.broker, self.archive_of(operation), self._names)
        index = partial(self.own_index, operation.queue)
        runner = RestoreRunner if operation.kind == "import" else OperationRunner
        return runner(operation, action, pace, self.broker, self.journal, index, self.folder, tell)

    def operation(self, name: str) -> Operation:
        """Return the operation with this name or this beginning of it. Raises `ConfigurationError`."""
        return self._looked_at(self.journal.operation(name))

    def operations(self) -> list[Operation]:
        """Return what was begun, the latest first."""
        return [self._looked_at(operation) for operation in self.journal.operations()]

    def _looked_at(self, operation: Operation) -> Operation:
        return replace(operation, is_running=is_locked(self.folder, operation.id))

    def ask(self, operation: Operation, request: Request) -> None:
        """Have a running operation paused or cancelled; one that is not running is cancelled here and now."""
        self.journal.ask(operation.id, request)
        self.journal.log(self.by, request, operation.queue, operation.id)
        now = self.operation(operation.id)
        if request == "cancel" and not now.is_running and now.state not in ("done", "cancelled"):
            self.journal.change(operation.id, "cancelled")

    def export(self, queue: str, selection: Selection, path: Path) -> int:
        """Write the selected letters, by the last reading, to a file; they stay. Returns their number."""
        part, count = path.with_name(path.name + ".part"), self.index(queue).count(selection)
        write_lines(part, export_lines(self.index(queue), queue, selection))
        part.replace(path)
        self.journal.log(self.by, "export", queue, f"{count} letter(s) to {path}")
        return count

    async def restore(self, path: Path, *, to: str | None = None) -> list[Operation]:
        """Fix which letters of an archive are to be put back into their dead-letter queues (or into `to`): an operation
        for each of the queues.

        Raises `ConfigurationError` naming the line, or `TopologyMissing`."""
        to = await self.resolve(to) if to else None
        queues = [to] if to else sorted({queue for queue, _ in lines_of(path)})
        for queue in queues:
            await self.resolve(queue)
        options, begun = {"path": str(path.absolute()), "to": to}, []  # noqa: ASYNC240 (no disk is touched)
        for queue in queues:
            letters = [(key, "") for key, _ in letters_for(path, queue, to)]
            begun.append(self.journal.begin("import", queue, letters, by=self.by, options=options))
        return begun


def export_lines(index: Index, queue: str, selection: Selection) -> Iterator[str]:
    """Write the selected letters of a queue as the lines of an archive."""
    for letter in index.letters(selection):
        yield to_line(letter.message, key=letter.key, queue=queue)


def _whoever() -> str:
    with suppress(OSError, KeyError):
        return f"{getpass.getuser()}@{socket.gethostname()}"
    return f"{os.getuid()}@{socket.gethostname()}"
