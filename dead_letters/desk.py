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
from .acting import Action, Discard, EditAndReplay, Replay
from .alone import is_running
from .archive import from_line, to_line
from .index import Index
from .journal import Journal, Kind, Operation, Wish
from .places import Place, known_queues, resolve, several
from .reading import WornOut, reading
from .remake import Edit, target_of
from .restoring import Restore, Restoring, letters_for, queues_of
from .selection import Selection
from .work import Pace, Work

Tell = Callable[[], None]
SOON_READ = 5_000
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]")


class DeadLetters:
    """The dead letters of one broker. What has to outlive the process is in a folder of files only their owner reads:
    an index per queue, the journal of operations, the archives. `by` is who the audit log names."""

    def __init__(self, settings: Settings, broker: Broker, *, by: str | None = None) -> None:
        self.broker = broker
        self.by = by or _whoever()
        self.folder = _expanded(settings.dead_letters.folder) / _place_of(settings)
        (self.folder / "archive").mkdir(mode=0o700, parents=True, exist_ok=True)
        self.journal = Journal(self.folder / "journal.sqlite")
        self._indexes: dict[str, Index] = {}

    def close(self) -> None:
        for index in self._indexes.values():
            index.close()
        self.journal.close()

    async def places(self, names: Iterable[str] = ()) -> list[Place]:
        """The dead-letter queues of these names, or all that workers have told of. One that holds a few thousand
        letters, and not as many as at the last reading, is read. (To look at the first letter alone would put it last:
        RabbitMQ returns to the end of what was returned before.)"""
        known = {await resolve(self.broker, name): "" for name in names} or await known_queues(self.broker)
        depths = await several(self.broker.count, known, at_a_time=8)

        async def place(queue: str) -> Place | None:
            depth = depths[queue]
            return None if depth is None else await self._place(queue, depth, known[queue])

        places = await several(place, known, at_a_time=4)
        return [found for found in places.values() if found is not None]

    async def _place(self, queue: str, depth: Depth, worker: str) -> Place:
        if depth.consumers or not depth.ready:
            return Place(queue, depth.ready, None, is_read=depth.consumers > 0, worker=worker)
        if depth.ready <= SOON_READ and depth.ready != self.index(queue).count():
            with suppress(QueueInUse, WornOut):
                await self.read(queue)
        return Place(queue, depth.ready, self.index(queue).oldest(), worker=worker)

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
            raise ConfigurationError(f"no letter in {queue} is meant by that")
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

    def work(self, operation: Operation, pace: Pace = Pace(), tell: Tell = lambda: None) -> Work:  # noqa: B008 (frozen)
        """What carries the operation out, from wherever it is. Raises `ConfigurationError` where it is over."""
        if operation.state in ("cancelled", "done"):
            raise ConfigurationError(f"{operation.id} is {operation.state}")
        action: Action
        carry_out = Work
        match operation.kind:
            case "replay":
                action = Replay(self.broker, operation)
            case "edit":
                action = EditAndReplay(self.broker, operation, self.archive_of(operation))
            case "discard":
                action = Discard(operation, self.archive_of(operation))
            case "import":
                action, carry_out = Restore(self.broker, operation), Restoring
            case _:
                assert_never(operation.kind)
        return carry_out(
            operation, action, pace,
            broker=self.broker, own_index=partial(self.own_index, operation.queue), journal=self.journal,
            folder=self.folder, tell=tell,
        )  # fmt: skip

    def is_running(self, operation: Operation) -> bool:
        """Whether some process is carrying it out now."""
        return is_running(self.folder, operation.id)

    def ask(self, operation: Operation, wish: Wish) -> None:
        """Have a running operation paused or cancelled; one that is not running is cancelled here and now."""
        self.journal.ask(operation.id, wish)
        self.journal.log(self.by, wish, operation.queue, operation.id)
        if wish == "cancel" and not self.is_running(operation) and operation.state not in ("done", "cancelled"):
            self.journal.change(operation.id, "cancelled")

    def export(self, queue: str, selection: Selection, path: Path) -> int:
        """Write the selected letters, by the last reading, to a file; they stay. Returns their number."""
        part, count = path.with_name(path.name + ".part"), 0
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            for letter in self.index(queue).letters(selection):
                file.write(to_line(letter.message, key=letter.key, queue=queue))
                count += 1
            file.flush()
            os.fsync(file.fileno())
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


def _place_of(settings: Settings) -> str:
    """One folder for each broker and virtual host."""
    parts = urlsplit(settings.broker.url.get_secret_value())
    address = f"{parts.scheme}://{parts.hostname}:{parts.port}{parts.path}"
    return f"{_file(parts.hostname or 'memory')[:40]}-{hashlib.blake2b(address.encode(), digest_size=4).hexdigest()}"


def _whoever() -> str:
    with suppress(OSError, KeyError):
        return f"{getpass.getuser()}@{socket.gethostname()}"
    return f"{os.getuid()}@{socket.gethostname()}"
