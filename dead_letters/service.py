"""`DeadLetters`: everything that can be done to dead letters, for the command line and the page alike."""

import base64
import getpass
import hashlib
import os
import re
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import assert_never
from urllib.parse import urlsplit

from ..broker import Broker, Depth
from ..config import Settings
from ..events import ConfigurationError, QueueInUse
from .actions import Action, Discard, EditAndReplay, Replay
from .archive import from_line, to_line, write_lines
from .index import Index
from .journal import Journal, Kind, Operation, Request
from .lock import is_running
from .queues import DeadQueue, known_queues, resolve, several
from .reader import WornOut, reading
from .replay import Edit, target_of
from .restoration import Restore, RestoreRunner, letters_for, queues_of
from .runner import Pace, Runner
from .selection import Selection

Tell = Callable[[], None]
SOON_READ = 5_000
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]")


class DeadLetters:
    """The dead letters of one broker. What has to outlive the process is in a folder of files only their owner reads:
    an index per queue, the journal of operations, the archives. `by` is who the audit log names."""

    def __init__(self, settings: Settings, broker: Broker, *, by: str | None = None) -> None:
        self.broker = broker
        self.by = by or _whoever()
        self.folder = _expanded(settings.dead_letters.folder) / _folder_of(settings)
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
        known = {await resolve(self.broker, name): "" for name in names} or await known_queues(self.broker)
        depths = await several(self.broker.count, known, at_a_time=8)

        async def look(name: str) -> DeadQueue | None:
            depth = depths[name]
            return None if depth is None else await self._look(name, depth, known[name])

        queues = await several(look, known, at_a_time=4)
        return [queue for queue in queues.values() if queue is not None]

    async def _look(self, queue: str, depth: Depth, worker: str) -> DeadQueue:
        if depth.consumers or not depth.ready:
            return DeadQueue(queue, depth.ready, None, is_read=depth.consumers > 0, worker=worker)
        if depth.ready <= SOON_READ and depth.ready != self.index(queue).count():
            with suppress(QueueInUse, WornOut):
                await self.read(queue)
        return DeadQueue(queue, depth.ready, self.index(queue).oldest(), worker=worker)

    async def resolve(self, name: str) -> str:
        return await resolve(self.broker, name)

    def index(self, queue: str) -> Index:
        """The index of a dead-letter queue as it was last read."""
        if queue not in self._indexes:
            self._indexes[queue] = Index(self.folder / f"{_file(queue)}.index.sqlite")
        return self._indexes[queue]

    async def read(self, queue: str, *, tell: Callable[[int], None] = lambda n: None, worn_too: bool = False) -> Index:
        """Read the queue into its index."""
        with self.own_index(queue) as own:  # what is being written is not seen by who reads
            async with reading(self.broker, queue, own, tell=tell, worn_too=worn_too):
                pass
        return self.index(queue)

    @contextmanager
    def own_index(self, queue: str) -> Iterator[Index]:
        """The same, opened again: for another thread, or for what takes longer than one turn of the loop."""
        own = Index(self.folder / f"{_file(queue)}.index.sqlite")
        try:
            yield own
        finally:
            own.close()

    def replay(self, queue: str, selection: Selection, *, to: str | None = None, forced: bool = False) -> Operation:
        """Fix the set of letters to replay: those selected, by the last reading. Nothing is touched before `work`."""
        return self._begin("replay", queue, selection, {"to": to, "forced": forced})

    def discard(self, queue: str, selection: Selection) -> Operation:
        """Fix the set of letters to discard. `archive_of` says where they will be kept."""
        return self._begin("discard", queue, selection, {})

    def edit(self, queue: str, key: str, edit: Edit, *, to: str | None = None) -> Operation:
        """Fix what one letter is to become."""
        options = {"body": base64.b64encode(edit.body).decode(), "headers": dict(edit.headers), "to": to}
        return self._begin("edit", queue, Selection(ids=(key,)), options)

    def _begin(self, kind: Kind, queue: str, selection: Selection, options: Mapping[str, object]) -> Operation:
        index = self.index(queue)
        keys = index.keys(selection)
        if not keys:
            raise ConfigurationError(f"no letter in {queue} matches")
        if kind == "edit" and len(keys) > 1:
            raise ConfigurationError(f"{selection.ids[0]!r} means {len(keys)} letters; give more of the id")
        if kind != "discard":
            for letter in index.letters(replace(selection, limit=1)):
                target_of(letter, queue, str(options["to"]) if options.get("to") else None)
        kinds = index.fingerprints(keys)
        return self.journal.begin(kind, queue, [(key, kinds[key]) for key in keys], by=self.by, options=options)

    def archive_of(self, operation: Operation) -> Path:
        """The file in which an operation keeps what it takes away; with an import, where it takes it from."""
        if operation.kind == "import":
            return Path(operation.options["path"])
        return self.folder / "archive" / f"{_file(operation.queue)}.{operation.id}.ndjson"

    def edited_as(self, operation: Operation) -> str:
        """The id of the event that an edit has made, as its archive tells."""
        if operation.kind != "edit" or not (path := self.archive_of(operation)).exists():
            return ""
        with path.open("rb") as file:
            return next((str(from_line(line)[1].get("edited_as")) for line in file if line.endswith(b"\n")), "")

    def work(self, operation: Operation, pace: Pace = Pace(), tell: Tell = lambda: None) -> Runner:  # noqa: B008 (frozen)
        """Return the runner that goes on with the operation. Raises `ConfigurationError` where it is over."""
        if operation.state in ("cancelled", "done"):
            raise ConfigurationError(f"{operation.id} is {operation.state}")
        action: Action
        runner = Runner
        match operation.kind:
            case "replay":
                action = Replay(self.broker, operation)
            case "edit":
                action = EditAndReplay(self.broker, operation, self.archive_of(operation))
            case "discard":
                action = Discard(operation, self.archive_of(operation))
            case "import":
                action, runner = Restore(self.broker, operation), RestoreRunner
            case _:
                assert_never(operation.kind)
        return runner(
            operation, action, pace,
            broker=self.broker, own_index=partial(self.own_index, operation.queue), journal=self.journal,
            folder=self.folder, tell=tell,
        )  # fmt: skip

    def is_running(self, operation: Operation) -> bool:
        """Whether some process is carrying it out now."""
        return is_running(self.folder, operation.id)

    def ask(self, operation: Operation, request: Request) -> None:
        """Have a running operation paused or cancelled; one that is not running is cancelled here and now."""
        self.journal.ask(operation.id, request)
        self.journal.log(self.by, request, operation.queue, operation.id)
        if request == "cancel" and not self.is_running(operation) and operation.state not in ("done", "cancelled"):
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
        queues = [to] if to else queues_of(path)
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


def _expanded(folder: str) -> Path:
    try:
        return Path(folder).expanduser()
    except RuntimeError:
        raise ConfigurationError(
            f"HOLDFAST_DEAD_LETTERS__FOLDER={folder}: no home folder is known for its ~; give a path without"
        ) from None


def _file(queue: str) -> str:
    """A file name for a queue: readable, and never another queue's."""
    safe = _UNSAFE.sub("_", queue)[:120]
    return safe if safe == queue else f"{safe}-{hashlib.blake2b(queue.encode(), digest_size=4).hexdigest()}"


def _folder_of(settings: Settings) -> str:
    """One folder for each broker and virtual host."""
    parts = urlsplit(settings.broker.urls[0])
    address = f"{parts.scheme}://{parts.hostname}:{parts.port}{parts.path}"
    return f"{_file(parts.hostname or 'memory')[:40]}-{hashlib.blake2b(address.encode(), digest_size=4).hexdigest()}"


def _whoever() -> str:
    with suppress(OSError, KeyError):
        return f"{getpass.getuser()}@{socket.gethostname()}"
    return f"{os.getuid()}@{socket.gethostname()}"
