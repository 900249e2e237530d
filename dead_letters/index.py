"""An index of a dead-letter queue: a SQLite file that is filled by reading the queue, and can be at any time."""

import hashlib
import json
import sqlite3
import time
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..events import ConfigurationError, Names
from ..events import headers as h
from .archive import from_json, to_json
from .files import database
from .letter import NO_NAMES, REASONS, Letter, base_of, read_letter
from .selection import Selection

BATCH = 500
BUCKETS = 24
_VERSION = 4
# Messages are in a table of their own: who looks for letters does not turn its pages.
_SCHEMA = f"""
DROP TABLE IF EXISTS letters;
DROP TABLE IF EXISTS messages;
DROP TABLE IF EXISTS about;
CREATE TABLE IF NOT EXISTS letters (
    position INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, event_id TEXT, event_type TEXT, version INTEGER,
    reason TEXT, handler TEXT, target TEXT, fingerprint TEXT, error_type TEXT, error_message TEXT,
    failed_at REAL, worker TEXT, returns INTEGER, chain TEXT, correlation_id TEXT);
CREATE TABLE IF NOT EXISTS messages (position INTEGER PRIMARY KEY, message BLOB);
CREATE INDEX IF NOT EXISTS by_fingerprint ON letters (fingerprint, failed_at);
CREATE INDEX IF NOT EXISTS by_event ON letters (event_id);
CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value REAL);
PRAGMA user_version = {_VERSION};
"""


ORDERS = {
    "queue": "position",
    "newest": "failed_at DESC, position DESC",
    "oldest": "failed_at, position",
    "event": "event_type, failed_at DESC",
    "reason": "reason, failed_at DESC",
    "error": "error_type, error_message, failed_at DESC",
}
"""The orders in which letters can be listed, by name."""


@dataclass(frozen=True, slots=True)
class Group:
    """Letters with the same fingerprint. `workers` are the versions they died with; `trend` counts them in equal parts
    of the time they span; `chain` has the types of one letter's exceptions, the last one raised last."""

    fingerprint: str
    count: int
    reason: str
    error_type: str
    error_message: str
    handlers: tuple[str, ...]
    event_types: tuple[str, ...]
    workers: tuple[str, ...]
    first_seen: datetime | None
    last_seen: datetime | None
    example: str
    trend: tuple[int, ...]
    chain: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Chosen:
    """Letters that were selected, fixed: the key of each and the fingerprint of its failure, in the order of the queue.
    `first` is None where there are none; `alike` has the keys of others, each alike in everything to one of them."""

    letters: tuple[tuple[str, str], ...]
    first: Letter | None
    alike: tuple[str, ...]

    @property
    def digest(self) -> str:
        """What is the same as long as the letters are the same."""
        keys = " ".join(sorted(key for key, _ in self.letters))
        return hashlib.blake2b(keys.encode(), digest_size=16).hexdigest()


class Index:
    """One queue's letters. With the path None in memory. Times are UTC. `names`: see `read_letter`."""

    def __init__(self, path: Path | None, names: Names = NO_NAMES) -> None:
        self.names = names
        self._db = database(path, synchronous="OFF")
        self._db.create_function("holds", 2, _holds, deterministic=True)
        self._db.create_function("is_of_key", 2, _is_of_key, deterministic=True)
        if self._db.execute("PRAGMA user_version").fetchone()[0] != _VERSION:
            self._db.executescript(_SCHEMA)  # what was in it is read again; one that is whole may be being rewritten

    @contextmanager
    def rewriting(self) -> Iterator[None]:
        """What is added inside replaces what was there before; where it ends in an exception, nothing does."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute("DELETE FROM letters")
            self._db.execute("DELETE FROM messages")
            yield
            self._db.execute("INSERT OR REPLACE INTO about VALUES ('read_at', ?)", [time.time()])

    def add(self, letters: Iterable[Letter]) -> None:
        new = list(letters)
        self._db.executemany(f"INSERT OR IGNORE INTO letters VALUES ({', '.join('?' * 16)})", map(_row, new))
        packed = [(one.position, zlib.compress(json.dumps(to_json(one.message)).encode(), 1)) for one in new]
        self._db.executemany("INSERT OR IGNORE INTO messages VALUES (?, ?)", packed)

    def remove(self, keys: Iterable[str]) -> None:
        gone = [(key,) for key in keys]
        self._db.executemany("DELETE FROM messages WHERE position = (SELECT position FROM letters WHERE key = ?)", gone)
        self._db.executemany("DELETE FROM letters WHERE key = ?", gone)

    @property
    def read_at(self) -> datetime | None:
        """When the queue was last read to its end."""
        row = self._db.execute("SELECT value FROM about WHERE name = 'read_at'").fetchone()
        return None if row is None else datetime.fromtimestamp(row[0], UTC)

    @property
    def returns(self) -> int:
        """How often the letters have been delivered and come back, by the last reading."""
        return int(self._db.execute("SELECT coalesce(max(returns) + 1, 0) FROM letters").fetchone()[0])

    def count(self, selection: Selection = Selection()) -> int:  # noqa: B008 (frozen)
        where, values = self._where(selection)
        [count] = self._db.execute(f"SELECT count(*) FROM letters WHERE {where}", values).fetchone()
        return int(count if selection.limit is None else min(count, selection.limit))

    def choose(self, selection: Selection) -> Chosen:
        """The letters that are selected now; another reading does not change them."""
        letters = tuple(self._select("key, fingerprint", selection))
        keys = {key for key, _ in letters}
        bases = set(map(base_of, keys))
        rows = self._db.execute("SELECT key FROM letters ORDER BY position")
        alike = tuple(key for (key,) in rows if key not in keys and base_of(key) in bases)
        return Chosen(letters, self.get(letters[0][0]) if letters else None, alike)

    def letters(self, selection: Selection, *, skip: int = 0, order: str = "queue") -> Iterator[Letter]:
        """The selected letters in one of `ORDERS`, that of the queue as a rule, without the first `skip`."""
        for key, position, returns, message in self._select("key, position, returns, message", selection, skip, order):
            yield _letter(self.names, key, position, returns, message)

    def get(self, key: str) -> Letter | None:
        """The letter with exactly this key."""
        row = self._db.execute(
            "SELECT key, position, returns, message FROM letters JOIN messages USING (position) WHERE key = ?", [key]
        ).fetchone()
        return None if row is None else _letter(self.names, *row)

    def only(self, key: str) -> Letter:
        """The one letter that this means: its key, the beginning of it, or an event id. Raises `ConfigurationError`."""
        letters = list(self.letters(Selection(id=(key,), limit=2)))
        if len(letters) != 1:
            raise ConfigurationError(f"{key!r} means {'no' if not letters else 'more than one'} letter of this queue")
        return letters[0]

    def groups(self, selection: Selection = Selection()) -> list[Group]:  # noqa: B008 (frozen)
        """The selected letters by fingerprint, the largest group first."""
        where, values = self._where(selection)
        rows = self._db.execute(
            "SELECT fingerprint, count(*), min(reason), min(error_type), min(error_message),"
            " json_group_array(DISTINCT handler), json_group_array(DISTINCT event_type),"
            " json_group_array(DISTINCT worker), min(failed_at), max(failed_at), min(key), min(chain)"
            f" FROM letters WHERE {where} GROUP BY fingerprint ORDER BY count(*) DESC, fingerprint",
            values,
        ).fetchall()
        times = [at for row in rows for at in row[8:10] if at is not None]
        trends = self._trends(where, values, min(times, default=0.0), max(times, default=0.0))
        return [_group(row, tuple(trends.get(row[0], [0] * BUCKETS))) for row in rows]

    def oldest(self) -> datetime | None:
        return _time(self._db.execute("SELECT min(failed_at) FROM letters").fetchone()[0])

    def values(self, column: str) -> list[str]:
        """What there is of reasons, event types or handlers."""
        if column not in ("reason", "event_type", "handler"):  # a template names it, and it becomes SQL
            raise ValueError(f"no such list: {column}")
        return [value for (value,) in self._db.execute(f"SELECT DISTINCT {column} FROM letters ORDER BY 1") if value]

    def close(self) -> None:
        self._db.close()

    def _where(self, selection: Selection) -> tuple[str, list[Any]]:
        """Return the condition. Raises `ConfigurationError` for a reason that neither is known nor in this queue."""
        reason = selection.reason
        if reason is not None and reason not in REASONS and reason not in (here := self.values("reason")):
            valid = ", ".join(dict.fromkeys((*REASONS, *here)))
            raise ConfigurationError(f"{reason[:60]!r} is no reason to die of; there are {valid}")
        return selection.where()

    def _trends(self, where: str, values: list[Any], first: float, last: float) -> dict[str, list[int]]:
        width = (last - first) / BUCKETS or 1.0
        trends: dict[str, list[int]] = {}
        for fingerprint, bucket, count in self._db.execute(
            f"SELECT fingerprint, CAST((failed_at - ?) / ? AS INTEGER) AS bucket, count(*) FROM letters"
            f" WHERE failed_at IS NOT NULL AND {where} GROUP BY fingerprint, bucket",
            [first, width, *values],
        ):
            trends.setdefault(fingerprint, [0] * BUCKETS)[min(bucket, BUCKETS - 1)] += count
        return trends

    def _select(self, columns: str, selection: Selection, skip: int = 0, order: str = "queue") -> sqlite3.Cursor:
        where, values = self._where(selection)
        limit = -1 if selection.limit is None else selection.limit
        letters = f"(SELECT * FROM letters WHERE {where} ORDER BY {ORDERS[order]} LIMIT ? OFFSET ?)"
        table = f"{letters} JOIN messages USING (position)" if "message" in columns else letters
        return self._db.execute(f"SELECT {columns} FROM {table} ORDER BY {ORDERS[order]}", [*values, limit, skip])


def _row(letter: Letter) -> tuple[Any, ...]:
    failed_at = None if letter.failed_at is None else letter.failed_at.timestamp()
    texts = (letter.reason, letter.handler, letter.target, letter.fingerprint, letter.error_type)
    clean = [text.encode("utf-8", "replace").decode() for text in (*texts, letter.error_message[:1000])]
    return (
        letter.position, letter.key, letter.event_id, letter.event_type, letter.version, *clean, failed_at,
        letter.worker, letter.returns, json.dumps(letter.chain), letter.correlation_id,
    )  # fmt: skip


def _holds(message: bytes, text: str) -> bool:
    """Whether each of these words is in the body of a message, in whatever case."""
    body = str(json.loads(zlib.decompress(message)).get("body", ""))
    if "\\u" in body:  # letters outside ASCII, as many senders write them
        with suppress(ValueError):
            body = json.dumps(json.loads(body), ensure_ascii=False)
    body = body.lower()
    return all(word in body for word in text.lower().split())


def _is_of_key(message: bytes, key: str) -> bool:
    """Whether a message is an event of this key: that of its ordered handler, or its own."""
    headers = from_json(json.loads(zlib.decompress(message))).headers
    return key in (headers.get(h.ORDER_KEY), headers.get(h.EVENT_KEY))


def _letter(names: Names, key: str, position: int, returns: int, message: bytes) -> Letter:
    value = json.loads(zlib.decompress(message))
    return read_letter(from_json(value), key=key, position=position, returns=returns, names=names)


def _group(row: tuple[Any, ...], trend: tuple[int, ...]) -> Group:
    fingerprint, count, reason, error_type, error, handlers, types, workers, first, last, example, chain = row
    names = [tuple(name for name in json.loads(listed) if name) for listed in (handlers, types, workers)]
    versions = tuple(sorted({name.rpartition(" ")[2] for name in names[2]}))
    return Group(
        fingerprint, count, reason, error_type, error, names[0], names[1], versions, _time(first), _time(last),
        example, trend, tuple(json.loads(chain)),
    )  # fmt: skip


def _time(value: float | None) -> datetime | None:
    return None if value is None else datetime.fromtimestamp(value, UTC)
