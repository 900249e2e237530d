"""The lock on an operation: one process carries it out."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..events import QueueInUse


@contextmanager
def locked(path: Path, name: str) -> Iterator[None]:
    """Hold the lock of the operation `name`. It goes with the process, however that ends. Raises `QueueInUse`."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise QueueInUse(f"{name} is being carried out by another process") from None
        yield
    finally:
        os.close(descriptor)


def is_running(folder: Path, name: str) -> bool:
    """Whether some process is carrying out the operation now."""
    try:
        with locked(folder / f"{name}.lock", name):
            return False
    except QueueInUse:
        return True
