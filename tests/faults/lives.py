"""The ledgers of a run by event, and what the checks say of them."""

from collections import defaultdict
from dataclasses import dataclass, field

from invariants import Invariant
from ledgers import Book, Entry, Fault, Letter, Sent

_BACK = 3.0  # seconds a worker may take to find that Redis is back, and to record what it owes


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken invariant, and the event, queue or process it broke on."""

    invariant: Invariant
    subject: str
    text: str


@dataclass(frozen=True, slots=True)
class Repeat:
    """An effect that came again, and the fault that accounts for it."""

    event_id: str
    queue: str
    fault: str


@dataclass(slots=True)
class Life:
    """One event in one queue."""

    event_id: str
    queue: str
    entries: list[Entry] = field(default_factory=list)
    letters: list[Letter] = field(default_factory=list)

    def of(self, phase: str) -> list[Entry]:
        return [entry for entry in self.entries if entry.phase == phase]

    @property
    def ended(self) -> bool:
        return bool(self.letters or self.of("effect"))


class Lives:
    """The ledgers, by event."""

    def __init__(self, book: Book) -> None:
        self.book = book
        self.sent = {sent.event_id: sent for sent in book.sent}
        self.lives: dict[tuple[str, str], Life] = {}
        self.derived: dict[tuple[str, str], set[str]] = defaultdict(set)
        for entry in sorted(book.entries, key=lambda entry: entry.at):
            if entry.event_id:
                self.life(entry.event_id, entry.queue).entries.append(entry)
                if entry.event_id not in self.sent and entry.cause:
                    self.derived[entry.cause, entry.queue].add(entry.event_id)
        for letter in book.letters:
            self.life(letter.event_id, letter.queue).letters.append(letter)
        self.root = {derived: cause for (cause, _), many in self.derived.items() for derived in many}

    def life(self, event_id: str, queue: str) -> Life:
        return self.lives.setdefault((event_id, queue), Life(event_id, queue))

    def origin(self, event_id: str) -> Sent | None:
        return self.sent.get(self.root.get(event_id, event_id))

    def faults_during(self, life: Life) -> list[Fault]:
        """The faults that may have touched an event: from when it was sent until the last word on it."""
        origin = self.origin(life.event_id)
        begin = origin.at if origin else 0.0
        end = max((entry.at for entry in life.entries), default=float("inf"))
        return [fault for fault in self.book.faults if fault.at <= end and begin <= fault.until]

    def is_owed(self, settled: Entry, killed: Fault) -> bool:
        """Whether Redis was gone when an event was handled, and not back, with that recorded, when its process was
        killed."""
        gone = [fault for fault in self.book.faults if fault.what.startswith("Redis")]
        return any(fault.at <= settled.at <= killed.at <= fault.until + _BACK for fault in gone)

    def copies(self, life: Life) -> int:
        origin = self.origin(life.event_id)
        return origin.copies if origin else 1

    def most_copies(self, life: Life) -> int:
        """As many as there may come to be of it, each of which goes its own way. What a fault meets while its retry is
        being published is there three times at most: as the copy whose confirm was lost, as that copy published
        again, and as the copy that the redelivered original makes."""
        return self.copies(life) * (1 + 2 * len(self.faults_during(life)))
