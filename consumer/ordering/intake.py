"""The intake of an ordered handler: it hands each event on to the partition of its key.

Of one key, the next event is handed on once the one before is confirmed. So whatever is refused, lost, or handed on
twice, each event first reaches its partition behind all earlier ones of its key. An intake that is lost leaves what it
has not removed to the next one, which hands it on again; the owner of the partition knows it by its copy in the
ledger, or by its claim. Operators' commands and replayed letters go from ledger to ledger.

Where the handler had one partition before, its ledger may hold events still. They go first, through the queues too: an
entry of another ledger might reach the owner of the partition later than the event behind it.
"""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any
from zlib import crc32

from ...broker import ledger_queue, partition_queues
from ...events import Incoming, Message
from ...events import headers as h
from ..copies import postponed_copy
from ..in_flight import InFlight
from ..outcome import Postpone
from ..settle import publish_copy
from .backlog import Backlog
from .desk import Desk
from .keys import Item, KeyLine
from .ledger import Entry, event_name, is_mark, rewritten, stub
from .seat import Came, Seat

_AS_IT_IS = Postpone(0.0, None)


class Intake:
    """The time in which one worker owns the queue that its events enter."""

    def __init__(self, desk: Desk, seat: Seat) -> None:
        self._desk = desk
        self._seat = seat
        self._is_paused = False
        self._partitions = partition_queues(desk.queue, desk.ordered.partitions)
        self._lines: dict[str, KeyLine] = {}

    @property
    def is_open(self) -> bool:
        """See `Tenure`."""
        return self._seat.is_open

    def begin(self, backlog: Backlog, waiting: Iterable[Came]) -> None:
        """See `Tenure`."""
        self._seat.rewrite_now_and_then(_nothing)
        self._desk.part.owned, self._desk.part.in_ledger = 1, backlog.count
        for item in backlog.superseded:
            self._remove(item)
        for key, line in backlog.lines.items():
            self._begin(key, line)
        for entry in backlog.others:
            self.receive(entry)
        for came in waiting:
            self.take(*came)

    def end_all(self) -> None:
        """See `Tenure`."""
        if self.is_open:
            self._seat.end()

    def pause(self) -> None:
        """See `Tenure`."""
        self._is_paused = True

    def running(self, flights: Mapping["asyncio.Task[None]", InFlight]) -> set["asyncio.Task[None]"]:
        """Return what is being handed on."""
        return set(self._seat.tasks)

    def take(self, message: Message, tag: int, redelivered: bool) -> None:
        """Receive a message of the handler's queue."""
        if is_mark(message):
            self._seat.queue.remove(tag)
            return
        desk = self._desk
        desk.part.in_hand += 1
        incoming = desk.read(message)
        item = Item(tag, event_name(incoming), body=incoming)
        if not self._line(desk.ordered.key_of(incoming, desk.spec.read)).arrive(item):
            self._remove(item)

    def receive(self, entry: Entry) -> None:
        """Receive a message of the ledger."""
        if entry.kind in ("letter", "command"):
            self._desk.part.in_ledger += 1
            self._seat.spawn(self._pass_on(entry))
        else:
            self._seat.pass_mark(entry)

    def _line(self, key: str) -> KeyLine:
        line = self._lines.get(key)
        if line is None:
            line = KeyLine()
            self._begin(key, line)
        return line

    def _begin(self, key: str, line: KeyLine) -> None:
        self._lines[key] = line
        self._seat.spawn(self._hand_on(key, line))

    async def _hand_on(self, key: str, line: KeyLine) -> None:
        desk, to = self._desk, self._partition(key)
        entry = {h.ORDER_KEY: key, h.EPOCH: self._seat.base}
        while not line.is_idle and not self._is_paused:
            item = line.chain[0] if line.chain else line.lane[0]
            incoming: Incoming = item.body
            copy = self._copy(item, incoming, entry, to)
            await publish_copy(desk.tools, desk.queue, incoming.metadata.event_id, copy)
            line.leave(item)
            self._remove(item)
        del self._lines[key]

    def _copy(self, item: Item, incoming: Incoming, entry: dict[str, Any], to: str) -> Message:
        tools, headers = self._desk.tools, incoming.message.headers
        now, budget = tools.clock.now(), tools.broker.header_budget
        if item.is_stub:
            return stub(to, incoming, {**entry, h.LEDGER: "stub"}, str(headers.get(h.REASON)), now)
        return postponed_copy(incoming, _AS_IT_IS, queue=self._desk.queue, now=now, budget=budget, entry=entry, to=to)

    def _remove(self, item: Item) -> None:
        part = self._desk.part
        if item.position is None:
            part.in_hand -= 1
            self._seat.queue.remove(item.tag)
        else:
            part.in_ledger -= 1
            self._seat.ledger.remove(item.tag)

    async def _pass_on(self, entry: Entry) -> None:
        """Publish a letter or a command to the ledger of its key; a command without a key to all, each of which
        answers."""
        is_for_all = entry.kind == "command" and not entry.key
        queues = self._partitions if is_for_all else (self._partition(entry.key),)
        more, message = {h.PARTITIONS: len(queues)}, entry.message
        copies = [rewritten(message, entry.revision, ledger_queue(queue), 0, more) for queue in queues]
        await asyncio.gather(*(publish_copy(self._desk.tools, self._desk.queue, "", copy) for copy in copies))
        self._desk.part.in_ledger -= 1
        self._seat.ledger.remove(entry.tag)

    def _partition(self, key: str) -> str:
        """Return the queue of a key: the same in every process, and for ever."""
        return self._partitions[crc32(key.encode(errors="surrogatepass")) % len(self._partitions)]


async def _nothing() -> None:
    """Rewrite nothing: what is in the ledger is passed on at once."""
