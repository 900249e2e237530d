"""What was begun and how far it has come: operations, their letters, the audit log and notes, in one SQLite file.

Whatever is written here is on disk when the call returns, so an operation goes on where it was when its process ended.
"""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeAlias

from ..events import ConfigurationError, Receipt, uuid7
from .files import database

Kind: TypeAlias = Literal["replay", "discard", "edit", "import"]
State: TypeAlias = Literal["running", "paused", "stopped", "cancelled", "waiting", "done"]
"""`stopped`: by itself, for a reason; `waiting`: all is replayed and some outcomes are not known yet."""

ItemState: TypeAlias = Literal[
    "waiting", "sending", "sent", "retrying", "handled", "skipped", "failed", "removed", "gone", "restored", "present"
]
"""`gone`: it was no longer in the queue, somebody else took it. `skipped`: its event had completed before. `present`:
not restored, for it is in its queue."""

Request: TypeAlias = Literal["run", "pause", "cancel"]

_HEARD = {"handled": "handled", "duplicate": "skipped", "postponed": "retrying", "dead_lettered": "failed"}
_SCHEMA = """
CREATE TABLE IF NOT EXISTS operations (
    id TEXT PRIMARY KEY, kind TEXT, queue TEXT, state TEXT, wish TEXT, detail TEXT, options TEXT, total INTEGER,
    by TEXT, begun REAL, changed REAL);
CREATE TABLE IF NOT EXISTS items (
    operation TEXT, n INTEGER, key TEXT, fingerprint TEXT, state TEXT, published INTEGER, removed INTEGER,
    returned TEXT, error TEXT, PRIMARY KEY (operation, n));
CREATE INDEX IF NOT EXISTS items_by_key ON items (operation, key);
CREATE INDEX IF NOT EXISTS items_by_state ON items (operation, removed, state);
CREATE TABLE IF NOT EXISTS spared (operation TEXT, key TEXT, PRIMARY KEY (operation, key));
CREATE TABLE IF NOT EXISTS audit (at REAL, who TEXT, action TEXT, queue TEXT, detail TEXT);
CREATE TABLE IF NOT EXISTS notes (queue TEXT, fingerprint TEXT, text TEXT, who TEXT, at REAL,
    PRIMARY KEY (queue, fingerprint));
"""


@dataclass(frozen=True, slots=True)
class Operation:
    """Something done to a fixed set of letters. `counts` says how many of them are in which state. `is_running`:
    some process carries it out, as far as `DeadLetters.operation` and `operations` have looked."""

    id: str
    kind: Kind
    queue: str
    state: State
    detail: str
    options: Mapping[str, Any]
    total: int
    by: str
    begun: datetime
    changed: datetime
    counts: Mapping[ItemState, int]
    is_running: bool = False

    @property
    def status(self) -> str:
        """Its state; `interrupted` where its process ended on the way, `failed` where letters have failed again."""
        if self.state == "running" and not self.is_running:
            return "interrupted"
        return "failed" if self.state in ("done", "waiting") and self.counts.get("failed") else self.state

    @property
    def unconfirmed(self) -> int:
        return self.counts.get("sent", 0) + self.counts.get("retrying", 0)

    @property
    def left(self) -> int:
        """How many it has not come to."""
        return self.counts.get("waiting", 0) + self.counts.get("sending", 0)


@dataclass(frozen=True, slots=True)
class Item:
    """One letter of an operation. `published`: the broker has confirmed what replaces it."""

    key: str
    fingerprint: str
    state: ItemState
    published: bool
    error: str


@dataclass(frozen=True, slots=True)
class Act:
    """A line of the audit log."""

    at: datetime
    who: str
    action: str
    queue: str
    detail: str


@dataclass(frozen=True, slots=True)
class Note:
    """What somebody wrote on a group."""

    text: str
    who: str
    at: datetime


class Journal:
    """The journal of operations; that of events is the package `journal`. With the path None in memory."""

    def __init__(self, path: Path | None) -> None:
        self._db = database(path, synchronous="FULL")
        self._db.executescript(_SCHEMA)

    def begin(
        self, kind: Kind, queue: str, letters: Iterable[tuple[str, str]], *, by: str, options: Mapping[str, Any],
        spared: Iterable[str] = (),
    ) -> Operation:  # fmt: skip
        """A new operation on these letters, (key, fingerprint), and no others. `spared` are the keys of those others
        that are alike in everything to one of them."""
        name, now = f"{kind}-{uuid7()[-8:]}", time.time()
        items = [(name, n, key, fingerprint) for n, (key, fingerprint) in enumerate(letters)]
        about = [name, kind, queue, json.dumps(options), len(items), by, now, now]
        with self._db:
            self._db.execute("BEGIN")
            self._db.execute("INSERT INTO operations VALUES (?, ?, ?, 'paused', 'run', '', ?, ?, ?, ?, ?)", about)
            self._db.executemany("INSERT INTO items VALUES (?, ?, ?, ?, 'waiting', 0, 0, '', '')", items)
            self._db.executemany("INSERT INTO spared VALUES (?, ?)", [(name, key) for key in spared])
        self.log(by, kind, queue, f"{name}: {len(items)} letter(s)")
        return self.operation(name)

    def operation(self, name: str) -> Operation:
        """The operation with this name or this beginning of it. Raises `ConfigurationError`."""
        rows = self._db.execute("SELECT * FROM operations WHERE id = ? OR substr(id, 1, length(?)) = ?", [name] * 3)
        alike = rows.fetchall()
        exact = [row for row in alike if row[0] == name] or alike
        if len(exact) != 1:
            raise ConfigurationError(f"there is {'no' if not exact else 'more than one'} operation {name!r}")
        return self._operation(exact[0])

    def operations(self, limit: int = 50) -> list[Operation]:
        """The latest first."""
        rows = self._db.execute("SELECT * FROM operations ORDER BY begun DESC LIMIT ?", [limit]).fetchall()
        return [self._operation(row) for row in rows]

    def change(self, name: str, state: State, detail: str = "") -> None:
        self._db.execute(
            "UPDATE operations SET state = ?, detail = ?, changed = ? WHERE id = ?", [state, detail, time.time(), name]
        )

    def requested(self, name: str) -> Request:
        """Return what is asked of an operation, by another process perhaps."""
        request: Request = self._db.execute("SELECT wish FROM operations WHERE id = ?", [name]).fetchone()[0]
        return request

    def ask(self, name: str, request: Request) -> None:
        self._db.execute("UPDATE operations SET wish = ?, changed = ? WHERE id = ?", [request, time.time(), name])

    def left(self, name: str) -> list[Item]:
        """The letters that are not off their queue (or, with an import, not in it), in its order."""
        return self._items("removed = 0 AND state != 'gone' ORDER BY n", [name])

    def removed(self, name: str) -> set[str]:
        """The letters that were taken off their queue, as far as this tool knows."""
        return {key for (key,) in self._db.execute("SELECT key FROM items WHERE operation = ? AND removed", [name])}

    def keys(self, name: str) -> dict[str, bool]:
        """Return the keys that letters of the queue have had, each with whether it is to be given to a letter again.

        Letters that are alike in everything can only be counted. Where fewer are there than are known, those that are
        to be done come first, then those that are spared, and last those that may be off the queue: each of these that
        is there after all the others has come back. A letter that has surely gone lends its key to no other."""
        query = """SELECT key, rank < 3 FROM (
            SELECT key, n, CASE WHEN removed = 2 OR state = 'gone' THEN 3 WHEN removed OR published THEN 2 ELSE 0 END
            AS rank FROM items WHERE operation = ? UNION ALL SELECT key, 0, 1 FROM spared WHERE operation = ?)
            ORDER BY rank, n"""
        return {key: bool(again) for key, again in self._db.execute(query, [name, name])}

    def failures(self, name: str, limit: int = 20) -> list[Item]:
        """Letters that failed again, or are being retried."""
        return self._items("state IN ('failed', 'retrying') ORDER BY n LIMIT ?", [name, limit])

    def counts(self, name: str, keys: Sequence[str] | None = None) -> dict[ItemState, int]:
        """Count the letters of an operation, or a few of them, by their states."""
        some = "" if keys is None else f" AND key IN ({', '.join('?' * len(keys))})"
        query = f"SELECT state, count(*) FROM items WHERE operation = ?{some} GROUP BY state"
        return dict(self._db.execute(query, [name, *(keys or ())]).fetchall())

    def sending(self, name: str, keys: Iterable[str]) -> None:
        """Their replacements are about to be published."""
        self._set("state = 'sending'", name, keys, "state = 'waiting'")

    def published(self, name: str, keys: Iterable[str]) -> None:
        """The broker has confirmed their replacements (or the archive holds them)."""
        self._set("published = 1", name, keys)

    def took(self, name: str, keys: Iterable[str], state: ItemState) -> None:
        """They are off their queue, or will come back to it until `settle` is called; with an import: in it."""
        self._set(f"removed = 1, state = iif(state IN ('waiting', 'sending'), '{state}', state)", name, keys)

    def settle(self, name: str) -> None:
        """What was taken off the queue is known to be off it."""
        self._db.execute("UPDATE items SET removed = 2 WHERE operation = ? AND removed = 1", [name])

    def gone(self, name: str, keys: Iterable[str]) -> None:
        """They are not in the queue any more, and it was not this operation that took them."""
        self._set("state = 'gone'", name, keys)

    def hear(self, receipts: Iterable[Receipt]) -> None:
        """Workers say what became of letters: they were published, whatever else is known."""
        rows = [
            (one.fingerprint, one.error, _HEARD[one.outcome], one.replay, one.letter, one.outcome) for one in receipts
        ]
        self._many(
            "UPDATE items SET published = 1, returned = ?, error = ?, state = ? WHERE operation = ? AND key = ?"
            " AND state != 'handled' AND (? = 'handled' OR state NOT IN ('skipped', 'failed'))",
            rows,
        )

    def same_failures(self, name: str) -> int:
        """How many letters failed, again, with the failure they had been dead-lettered for."""
        condition = "operation = ? AND state IN ('failed', 'retrying') AND returned = fingerprint"
        return int(self._db.execute(f"SELECT count(*) FROM items WHERE {condition}", [name]).fetchone()[0])

    def log(self, who: str, action: str, queue: str, detail: str) -> None:
        """A line of the audit log."""
        self._db.execute("INSERT INTO audit VALUES (?, ?, ?, ?, ?)", [time.time(), who, action, queue, detail])

    def acts(self, limit: int = 200) -> list[Act]:
        """The audit log, the latest first."""
        rows = self._db.execute("SELECT * FROM audit ORDER BY at DESC LIMIT ?", [limit])
        return [Act(datetime.fromtimestamp(at, UTC), *texts) for at, *texts in rows]

    def write_note(self, queue: str, fingerprint: str, text: str, *, who: str) -> None:
        """Put a note on a group; an empty text takes it away."""
        if text:
            row = [queue, fingerprint, text[:4000], who, time.time()]
            self._db.execute("INSERT OR REPLACE INTO notes VALUES (?, ?, ?, ?, ?)", row)
        else:
            self._db.execute("DELETE FROM notes WHERE queue = ? AND fingerprint = ?", [queue, fingerprint])
        self.log(who, "note", queue, f"{fingerprint}: {text[:200]}")

    def notes(self, queue: str) -> dict[str, Note]:
        rows = self._db.execute("SELECT fingerprint, text, who, at FROM notes WHERE queue = ?", [queue])
        return {kind: Note(text, who, datetime.fromtimestamp(at, UTC)) for kind, text, who, at in rows}

    def close(self) -> None:
        self._db.close()

    def _items(self, condition: str, values: Sequence[object]) -> list[Item]:
        query = f"SELECT key, fingerprint, state, published, error FROM items WHERE operation = ? AND {condition}"
        rows = self._db.execute(query, values)
        return [Item(key, kind, state, bool(published), error) for key, kind, state, published, error in rows]

    def _set(self, change: str, name: str, keys: Iterable[str], condition: str = "1") -> None:
        statement = f"UPDATE items SET {change} WHERE operation = ? AND key = ? AND {condition}"
        self._many(statement, [(name, key) for key in keys])

    def _many(self, statement: str, rows: Iterable[tuple[object, ...]]) -> None:
        with self._db:
            self._db.execute("BEGIN")
            self._db.executemany(statement, rows)

    def _operation(self, row: tuple[Any, ...]) -> Operation:
        name, kind, queue, state, _, detail, options, total, by, begun, changed = row
        moments = (datetime.fromtimestamp(begun, UTC), datetime.fromtimestamp(changed, UTC))
        return Operation(name, kind, queue, state, detail, json.loads(options), total, by, *moments, self.counts(name))
