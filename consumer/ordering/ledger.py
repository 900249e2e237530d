"""The entries of a ledger, and how they are written and read.

kind         what it is
----         ----------
record       the epoch of an owner; the highest is `ctx.fence`
sentinel     a new owner's mark: all that lay before it has been read
parked       an event that waits: a copy, with its key, position, revision, epoch and due time
stub         an event that is in the dead-letter queue, and holds its key
letter       a dead letter that was replayed
command      an operator's word, which is answered
poke         a new owner's mark in the handler's queue: its earlier owner can take nothing off any more
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal, TypeAlias, get_args

from ...broker import Clock
from ...events import Headers, Incoming, Message, uuid7
from ...events import headers as h
from .keys import LETTER, EventName, Item

Kind: TypeAlias = Literal["record", "sentinel", "parked", "stub", "letter", "command", "poke"]
_KINDS = frozenset(get_args(Kind))


_NONE: Mapping[str, Any] = {}


@dataclass(slots=True, eq=False)
class Entry:
    """A message of a ledger, as it was delivered. `epoch` is that of the owner that wrote it, 0 where none did."""

    kind: Kind
    key: str
    epoch: int
    position: int
    revision: int
    message: Message
    tag: int
    redelivered: bool

    @property
    def is_of_no_owner(self) -> bool:
        """Whether it is a mark of a worker that was in line, or had begun to read the ledger."""
        return self.kind in ("record", "sentinel") and not self.epoch


def mark(queue: str, kind: Kind, epoch: int = 0) -> Message:
    """Return a record, sentinel or poke for a queue."""
    return Message(b"", "", queue, headers={h.LEDGER: kind, h.EPOCH: epoch}, message_id=uuid7())


@dataclass(frozen=True, slots=True)
class Layout:
    """To how many `partitions` an owner hands events on, or 1; `base` is the fence of the last owner before them."""

    partitions: int = 1
    base: int = 0

    def record(self, queue: str, epoch: int) -> Message:
        """Return the record of an owner."""
        message = mark(queue, "record", epoch)
        if self == Layout():
            return message
        return replace(message, headers={**message.headers, h.PARTITIONS: self.partitions, h.BASE: self.base})

    def follows(self, known: Iterable[Entry]) -> "Layout":
        """Return this layout as that of the next owner. Raises `ValueError` with the number of partitions that there
        are, where the keys would change their partition."""
        records = [entry for entry in known if entry.kind == "record"]
        newest = max(records, key=lambda entry: entry.epoch, default=None)
        if newest is None or not newest.epoch:
            return self
        partitions, base = (_whole(newest.message.headers.get(name)) for name in (h.PARTITIONS, h.BASE))
        if (partitions or 1) == self.partitions:
            return replace(self, base=base)
        if partitions:
            raise ValueError(partitions)
        return replace(self, base=newest.epoch)


def entry_headers(kind: Kind, *, key: str, epoch: int, position: int, revision: int) -> dict[str, Any]:
    """Return the headers by which an entry is read again."""
    return {h.LEDGER: kind, h.ORDER_KEY: key, h.EPOCH: epoch, h.POSITION: position, h.REVISION: revision}


def due_headers(now: datetime, delay: float) -> dict[str, Any]:
    """Return the headers that make an entry wait for `delay` seconds."""
    milliseconds = round(1000 * delay)
    return {h.DUE: int(1000 * now.timestamp()) + milliseconds, h.DELAY: milliseconds}


def stub(queue: str, incoming: Incoming, entry: Mapping[str, Any], reason: str, now: datetime) -> Message:
    """Return the entry that holds a key for an event in the dead-letter queue."""
    metadata = incoming.metadata
    headers = {**entry, h.EVENT_ID: metadata.event_id, h.REASON: reason, h.FAILED_AT: now.isoformat()}
    return Message(
        b"", "", queue, headers=headers, message_id=uuid7(), type=metadata.event_type, app_id=metadata.source or None
    )


def rewritten(message: Message, revision: int, queue: str, epoch: int, more: Mapping[str, Any] = _NONE) -> Message:
    """Return a newer copy of an entry, with `more` headers."""
    headers = {n: value for n, value in message.headers.items() if not n.startswith(h.BROKERS_OWN)}
    headers |= {h.REVISION: revision + 1, h.EPOCH: epoch, **more}
    return Message(
        message.body,
        "",
        queue,
        headers,
        uuid7(),
        message.type,
        message.content_type,
        message.content_encoding,
        message.correlation_id,
        message.timestamp,
        message.app_id,
        message.priority,
        message.reply_to,
    )


def read_entry(message: Message, tag: int, redelivered: bool) -> Entry:
    """Return what a message of the ledger is. One of no known kind is a poke, which means nothing there."""
    carried = message.headers.get
    kind, key = carried(h.LEDGER), carried(h.ORDER_KEY, "")
    return Entry(
        kind if isinstance(kind, str) and kind in _KINDS else "poke",  # type: ignore[arg-type]
        key if isinstance(key, str) else "",
        _whole(carried(h.EPOCH)),
        _whole(carried(h.POSITION)),
        _whole(carried(h.REVISION)),
        message,
        tag,
        redelivered,
    )


def is_mark(message: Message) -> bool:
    """Return whether a message of the handler's queue is a poke."""
    return message.headers.get(h.LEDGER) == "poke"


def item_of(entry: Entry, body: Any, read: Callable[[Message], Incoming], clock: Clock) -> Item:
    """Return a parked event, stub or letter as an item of its key. Only a letter is read as a whole: of the others,
    which are as an owner wrote them, there may be thousands."""
    message = entry.message
    headers = message.headers
    item = Item(entry.tag, None, entry.position, entry.revision, body=body, redelivered=entry.redelivered)
    item.at = clock.time()
    if entry.kind == "letter":
        incoming = read(message)
        metadata = incoming.metadata
        item.event = event_name(incoming) or ("", "", str(headers.get(h.REPLAY)))
        item.position = LETTER
        item.replays = tuple((metadata.source, cause) for cause in (metadata.event_id, metadata.causation_id) if cause)
        return item
    name = headers.get(h.EVENT_ID)
    if isinstance(name, str) and h.GUESSED_ID not in headers:
        item.event = (message.app_id or "", name)
    else:
        item.event = ("", "", str(entry.position))
    item.is_stub = entry.kind == "stub"
    if h.DUE in headers:
        item.due = item.at + _delay(headers, clock.now())
    return item


def event_name(incoming: Incoming) -> EventName | None:
    """Return what an event is recognised by; None where its id is a guess, which another event may share."""
    return (incoming.metadata.source, incoming.metadata.event_id) if incoming.has_id else None


def answer(to: str, content: Mapping[str, Any]) -> Message:
    """Return the answer to a command."""
    return Message(json.dumps(content).encode(), "", to, message_id=uuid7(), content_type="application/json")


def _delay(headers: Headers, now: datetime) -> float:
    """Return the seconds after which an entry is due. Its delay bounds them: a clock that is wrong shifts a retry."""
    due, delay = _whole(headers[h.DUE]) / 1000, _whole(headers.get(h.DELAY)) / 1000
    return min(max(due - now.timestamp(), 0.0), delay)


def _whole(value: object) -> int:
    return value if type(value) is int and value >= 0 else 0
