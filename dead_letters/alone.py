"""One process carries out an operation."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..events import QueueInUse


@contextmanager
def alone(path: Path, name: str) -> Iterator[None]:
    """One process carries out an operation. The lock goes with the process, however it ends."""
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
        with alone(folder / f"{name}.lock", name):
            return False
    except QueueInUse:
        return True
