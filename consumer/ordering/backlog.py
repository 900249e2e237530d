"""The backlog of a queue: events that wait in its ledger, as a new owner reads them."""

from .desk import Desk
from .keys import LETTER, Item, KeyLine
from .ledger import Entry, item_of


class Backlog:
    """What earlier owners left in a ledger, in order as soon as it is read: there may be thousands of entries.

    `lines` are those of the keys, with all events without a key in that of "". `superseded` can be taken off the
    ledger, `others` are marks and commands. `epoch` and `position` are the highest, `count` is that of the items.
    """

    def __init__(self, desk: Desk) -> None:
        self.lines: dict[str, KeyLine] = {}
        self.superseded: list[Item] = []
        self.others: list[Entry] = []
        self.epoch, self.position, self.count = 0, LETTER, 0
        self._desk = desk

    def add(self, entry: Entry) -> None:
        """Put an entry in order. Letters come last."""
        self.epoch = max(self.epoch, entry.epoch)
        if entry.kind not in ("parked", "stub", "letter"):
            self.others.append(entry)
            return
        self.position = max(self.position, entry.position)
        self.count += 1
        desk, line = self._desk, self.lines.get(entry.key)
        if line is None:
            line = self.lines[entry.key] = KeyLine()
        body = desk.read(entry.message) if desk.part.is_intake else entry.message
        self.superseded += line.enter(item_of(entry, body, desk.read, desk.tools.clock))
