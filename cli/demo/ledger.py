"""What handlers did, written down outside of everything that may break: one JSON line per step, appended."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Entry:
    """A handler began an order (`start`) or did its work (`effect`)."""

    listener: str
    order: int
    attempt: int
    phase: str
    process: int = field(default_factory=os.getpid)


def appender(path: str | None) -> Callable[[Entry], None]:
    """A function that appends entries to the file, whole lines at a time; without a path it keeps nothing."""
    if path is None:
        return lambda entry: None
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    return lambda entry: _write(descriptor, json.dumps(asdict(entry)))


def _write(descriptor: int, line: str) -> None:
    os.write(descriptor, line.encode() + b"\n")


@dataclass(slots=True)
class Tail:
    """The whole lines of a file that is being appended to, those since the last look."""

    path: Path
    offset: int = 0

    def lines(self) -> list[str]:
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            file.seek(self.offset)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self.offset += len(whole)
        return whole.decode(errors="replace").splitlines()
