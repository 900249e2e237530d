"""The life of one key. Pure: it knows no broker, no clock and no task.

The *lane* holds what came from the handler's queue and waits for its turn. The *chain* holds what is in the ledger: an
event that is to be tried again, one that is dead (a stub), and what was parked behind them, by position. As long as
there is a chain, it goes first. One event of the key runs at a time, and one is parked at a time.

    lane     head runs                  no chain, and the ledger has room
    chain    head runs                  it is due, and no stub
    lane     head is parked             the head of the chain waits or is dead, or too many wait behind it; or it is a
                                        stub, from where the key was before
"""

from bisect import bisect_left, insort
from collections import deque
from dataclasses import dataclass, field
from typing import Any, TypeAlias

PATIENT = 20
"""Events of one key that wait in the lane while its chain runs, instead of being parked."""

EventName: TypeAlias = tuple[str, ...]
"""The source and the id by which an event is recognised."""


@dataclass(slots=True, eq=False)
class Item:
    """A message of a key. One in the ledger has a `position`; its copies have the same, and a higher `revision`.

    `event` is None for one from the handler's queue whose id another event may have, too. `due` is the time before
    which it does not run. A `stub` stands for an event that is in the dead-letter queue. `replays` are the events for
    which a replayed letter stands in. `is_moving`: a newer copy of it is on its way to the ledger. The rest is of no
    meaning here: the message as its `body`, whether it was `redelivered`, the time `at` which it came, how many claims
    it `asked` for that were busy, and the seconds that it `waited` for them.
    """

    tag: int
    event: EventName | None = None
    position: int | None = None
    revision: int = 0
    due: float = 0.0
    is_stub: bool = False
    replays: tuple[EventName, ...] = ()
    is_moving: bool = False
    body: Any = None
    redelivered: bool = False
    at: float = 0.0
    asked: int = 0
    waited: float = 0.0


@dataclass(frozen=True, slots=True)
class Run:
    """Run this event now."""

    item: Item


@dataclass(frozen=True, slots=True)
class Park:
    """Copy this event to the ledger, confirmed, then take it off the handler's queue."""

    item: Item


Step: TypeAlias = Run | Park


@dataclass(slots=True, eq=False)
class KeyLine:
    """The events of one key that its owner has in hand."""

    lane: deque[Item] = field(default_factory=deque)
    chain: list[Item] = field(default_factory=list)
    running: Item | None = None
    parking: Item | None = None
    _names: dict[EventName, Item] = field(default_factory=dict)

    @property
    def is_idle(self) -> bool:
        """Whether nothing of the key is in hand."""
        return not (self.lane or self.chain)

    @property
    def is_held(self) -> bool:
        """Whether an event in the dead-letter queue holds the key."""
        return bool(self.chain) and self.chain[0].is_stub

    @property
    def due(self) -> float | None:
        """The time until which the key waits; None if it waits for no time."""
        head = self.chain[0] if self.chain else self.lane[0] if self.lane else None
        return None if head is None or head.is_stub or self.running is not None else head.due

    def arrive(self, item: Item) -> bool:
        """Put an event from the handler's queue into the lane. Returns False for one that is in the ledger already:
        its copy was confirmed before, and the original can go."""
        if item.event is not None and item.event in self._names:
            return False
        self.lane.append(item)
        return True

    def enter(self, item: Item) -> list[Item]:
        """Put an entry of the ledger into the chain. Returns those that can be taken off their queue for it: older
        copies, a stub whose letter was replayed, or the entry itself if there is a newer one.

        A letter stands in for all there is of its event, and for the stub that is written at this moment. A new owner
        puts letters in last."""
        known = self._names.get(item.event) if item.event is not None else None
        older = [] if known is None else [known]
        if item.replays:
            older += [stub for name in item.replays if (stub := self._names.get(name)) is not None and stub.is_stub]
            running = [] if self.running is None or self.running.event != item.event else [self.running]
            item.revision = 1 + max(other.revision for other in (item, *older, *running))
        elif known is not None and known.revision >= item.revision:
            return [item]
        superseded = [other for other in dict.fromkeys((*older, *self._originals(item))) if other is not self.running]
        for other in superseded:
            self._remove(other)
        insort(self.chain, item, key=_position)
        if item.event is not None:
            self._names[item.event] = item
        return superseded

    def step(self, now: float, *, is_full: bool = False) -> Step | None:
        """Return what is to be done next, and take it to be begun. `is_full`: the ledger has no room for more."""
        head = self.chain[0] if self.chain else None
        if self.running is None:
            if head is not None:
                if not head.is_stub and not head.is_moving and head.due <= now:
                    self.running = head
                    return Run(head)
            elif self.lane and self.parking is None and not is_full and self.lane[0].due <= now:
                if self.lane[0].is_stub:
                    self.parking = self.lane[0]
                    return Park(self.parking)
                self.running = self.lane[0]
                return Run(self.running)
        if head is not None and self.lane and not is_full and self._must_park(head):
            self.parking = self.lane[0]
            return Park(self.parking)
        return None

    def leave(self, item: Item) -> None:
        """Forget an item: it is off its queue."""
        self._remove(item)
        self.running = None if self.running is item else self.running
        self.parking = None if self.parking is item else self.parking

    def wait(self, item: Item, until: float) -> None:
        """Note that an event that was to run did not: it is the first of its key still, and waits."""
        if self.running is item:
            self.running = None
            item.due = until

    def pass_over(self) -> Item | None:
        """Return the stub that holds the key, and go on without it; None if there is none."""
        stub = self.chain[0] if self.is_held and not self.chain[0].is_moving else None
        if stub is not None:
            self._remove(stub)
        return stub

    def hurry(self) -> bool:
        """Let the head of the chain run now. Returns False if it is dead, or there is none."""
        if not self.chain or self.is_held:
            return False
        self.chain[0].due = 0.0
        return True

    def has(self, item: Item) -> bool:
        """Return whether an item is in the chain."""
        return self._index(item) is not None

    def _index(self, item: Item) -> int | None:
        """Return where an item is in the chain. A ledger may hold thousands of events of one key."""
        position = _position(item)
        for at in range(bisect_left(self.chain, position, key=_position), len(self.chain)):
            if self.chain[at] is item:
                return at
            if _position(self.chain[at]) != position:
                break
        return None

    def _must_park(self, head: Item) -> bool:
        if self.parking is not None or self.lane[0] is self.running:
            return False
        return self.running is None or len(self.lane) > PATIENT

    def _originals(self, item: Item) -> list[Item]:
        """Return what is in the lane of the same event, but for one that is being parked."""
        if item.event is None:
            return []
        return [other for other in self.lane if other.event == item.event and other is not self.parking]

    def _remove(self, item: Item) -> None:
        if item.position is None:
            if item in self.lane:
                self.lane.remove(item)
        elif (at := self._index(item)) is not None:
            del self.chain[at]
            if item.event is not None and self._names.get(item.event) is item:
                del self._names[item.event]


def _position(item: Item) -> int:
    return item.position if item.position is not None else LETTER


LETTER = 0
"""The position of a replayed letter: before all that waits."""
