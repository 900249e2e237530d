"""The files of the dead-letter tools: read by their owner alone, written whole, and locked by one process at a time."""

import fcntl
import hashlib
import os
import re
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from ..config import Settings
from ..events import ConfigurationError, QueueInUse

_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]")


def folder_of(settings: Settings) -> Path:
    """Return the folder for the broker and virtual host of these settings. Raises `ConfigurationError`."""
    folder, url = settings.dead_letters.folder, urlsplit(settings.broker.urls[0])
    address = f"{url.scheme}://{url.hostname}:{url.port}{url.path}"
    try:
        return Path(folder).expanduser() / f"{file_name(url.hostname or 'memory')[:40]}-{_digest(address)}"
    except RuntimeError:
        raise ConfigurationError(
            f"HOLDFAST_DEAD_LETTERS__FOLDER={folder}: no home folder is known for its ~; give a path without"
        ) from None


def file_name(queue: str) -> str:
    """Return a file name for a queue: readable, and never another queue's."""
    safe = _UNSAFE.sub("_", queue)[:120]
    return safe if safe == queue else f"{safe}-{_digest(queue)}"


def database(path: Path | None, *, synchronous: str) -> sqlite3.Connection:
    """Open a SQLite file that readers and one writer share; with the path None in memory."""
    if path is not None:
        path.touch(mode=0o600)
    opened = sqlite3.connect(path or ":memory:", isolation_level=None, timeout=30)
    opened.executescript(f"PRAGMA journal_mode = WAL; PRAGMA synchronous = {synchronous};")
    return opened


def write_lines(path: Path, lines: Iterable[str], *, append: bool = False) -> None:
    """Write lines to a file. Returns once they are on disk."""
    mode = os.O_APPEND if append else os.O_TRUNC
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | mode, 0o600), "w", encoding="utf-8") as file:
        file.writelines(lines)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def locked(folder: Path, name: str) -> Iterator[None]:
    """Hold the lock of the operation `name`. It goes with the process, however that ends. Raises `QueueInUse`."""
    descriptor = os.open(folder / f"{name}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise QueueInUse(f"{name} is being carried out by another process") from None
        yield
    finally:
        os.close(descriptor)


def is_locked(folder: Path, name: str) -> bool:
    """Whether some process is carrying out the operation now."""
    try:
        with locked(folder, name):
            return False
    except QueueInUse:
        return True


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
