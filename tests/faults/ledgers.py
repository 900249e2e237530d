"""The ledgers of one run, as values: what was sent, what was done with it, what was broken, and how it ended."""

import json
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

Outcome = Literal["confirmed", "nacked", "returned", "unknown"]
Phase = Literal["attached", "start", "effect", "done", "settled", "suspected", "dying", "gauge"]
Explains = Literal["nothing", "its process", "what ran", "what was noted"]
"""Which repeated effects a fault may account for: none; those of the process it hit that were under way; those of any
process that were under way at some time of it (leases were lost, or a process stood still past a time-out); or of all
that had begun before it was over (what had been noted as done was lost)."""

Series = tuple[int, str, str]
"""A process, a queue and an outcome: what is counted in metrics and logs."""


@dataclass(frozen=True, slots=True)
class Sent:
    """One event as its publisher knows it. `copies`: how often it was given to the broker at most."""

    event_id: str
    type: str
    at: float
    copies: int
    outcome: Outcome
    told: tuple[str, ...] = ()
    key: str = ""
    seq: int = 0


@dataclass(frozen=True, slots=True)
class Entry:
    """One line a worker process wrote, the moment it happened."""

    phase: Phase
    pid: int
    at: float
    event_id: str = ""
    queue: str = ""
    attempt: int = 0
    outcome: str = ""
    cause: str = ""
    key: str = ""
    seq: int = 0
    fence: int = 0
    figures: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Fault:
    """What was broken, from when until when. `pid` is the worker it hit, 0 where it hit something else."""

    what: str
    at: float
    until: float
    explains: Explains = "nothing"
    pid: int = 0


@dataclass(frozen=True, slots=True)
class Letter:
    event_id: str
    queue: str
    reason: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """A key that an operator let go on without the dead letter that held it."""

    key: str
    queue: str
    at: float


@dataclass(frozen=True, slots=True)
class Growth:
    """A figure of a process that lived from beginning to end: at rest before the faults, and at rest after them."""

    of: str
    before: int
    after: int
    allowed: int


@dataclass(frozen=True, slots=True)
class Held:
    """A claim that is held in Redis when all workers have ended, and whose it is where that is known."""

    key: str
    event_id: str = ""
    queue: str = ""


@dataclass(frozen=True, slots=True)
class Ending:
    """What was found when all was healed and drained. `counted` are the metrics of the processes that lived to be
    asked, by process, queue and outcome; `logged` the same from their log lines. `in_ledgers`: the kinds of the entries
    that the ledgers of ordered queues hold when all workers have ended."""

    left: dict[str, list[str]] = field(default_factory=dict)
    held: tuple[Held, ...] = ()
    codes: dict[int, int] = field(default_factory=dict)
    in_ledgers: dict[str, list[str]] = field(default_factory=dict)
    growth: tuple[Growth, ...] = ()
    counted: dict[Series, int] = field(default_factory=dict)
    logged: dict[Series, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Promise:
    """What this run's workers are held to."""

    routes: dict[str, tuple[str, ...]]
    follows: dict[str, str]
    attempts: int
    concurrency: int
    recovery: float = 45.0
    ordered: frozenset[str] = frozenset()
    partitions: int = 1


@dataclass(frozen=True, slots=True)
class Book:
    """All ledgers of a run."""

    promise: Promise
    sent: tuple[Sent, ...]
    entries: tuple[Entry, ...]
    faults: tuple[Fault, ...]
    letters: tuple[Letter, ...]
    ending: Ending
    skipped: tuple[Skipped, ...] = ()


class Journal:
    """An append-only file of entries. Each is written at once, in one piece, so that it outlives its writer."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = os.open(path, os.O_CREAT | os.O_APPEND | os.O_RDWR, 0o600)
        self._read = 0
        self._rest = b""

    def write(self, phase: Phase, **fields: object) -> None:
        line = {"phase": phase, "pid": os.getpid(), "at": time.monotonic()} | fields
        os.write(self._file, json.dumps(line).encode() + b"\n")

    def fresh(self) -> list[Entry]:
        """What was written since this was last asked."""
        size = os.fstat(self._file).st_size
        data = self._rest + os.pread(self._file, size - self._read, self._read)
        self._read = size
        *lines, self._rest = data.split(b"\n")
        return [Entry(**json.loads(line)) for line in lines]

    def close(self) -> None:
        os.close(self._file)


def as_json(book: Book) -> str:
    """A book to keep beside a violation."""
    ending = asdict(book.ending)
    for name in ("counted", "logged"):
        ending[name] = [[*place, count] for place, count in ending[name].items()]
    promise = asdict(book.promise) | {"ordered": sorted(book.promise.ordered)}
    parts = {
        name: [asdict(one) for one in getattr(book, name)]
        for name in ("sent", "entries", "faults", "letters", "skipped")
    }
    return json.dumps({"promise": promise, "ending": ending} | parts, indent=1)
