"""What the processes of a run wrote, read while it goes on: who consumes, what has ended, and what is still open."""

from collections import Counter, defaultdict

from ledgers import Entry, Journal


class Reader:
    """The journal of a run. An event that was confirmed is open until its handler took effect or it is a dead letter;
    one of `link`, until what was published for it has ended in `linked`."""

    def __init__(self, journal: Journal, link: str, linked: str) -> None:
        self.entries: list[Entry] = []
        self.attached: Counter[int] = Counter()
        self._journal, self._link, self._linked = journal, link, linked
        self._ended: set[tuple[str, str]] = set()
        self._dead: set[tuple[str, str]] = set()
        self._heirs: dict[str, set[str]] = defaultdict(set)
        self._waiting: list[tuple[str, str]] = []

    def expect(self, event_id: str, queue: str) -> None:
        """It was confirmed, so it has to end."""
        self._waiting.append((event_id, queue))

    def read(self) -> None:
        for entry in self._journal.fresh():
            self.entries.append(entry)
            if entry.phase == "attached":
                self.attached[entry.pid] += 1
            if entry.phase == "effect" or entry.outcome == "dead_lettered":
                self._ended.add((entry.event_id, entry.queue))
                if entry.outcome == "dead_lettered":
                    self._dead.add((entry.event_id, entry.queue))
                if entry.cause:
                    self._heirs[entry.cause].add(entry.event_id)

    def open(self) -> int:
        """How many confirmed events have no end yet."""
        self.read()
        self._waiting = [place for place in self._waiting if self._waits(*place)]
        return len(self._waiting)

    def _waits(self, event_id: str, queue: str) -> bool:
        if (event_id, queue) not in self._ended:
            return True
        if queue != self._link or (event_id, queue) in self._dead:
            return False
        return not any((heir, self._linked) in self._ended for heir in self._heirs[event_id])

    def moves(self) -> int:
        """A figure that stands still when nothing is handled any more."""
        self.read()
        return sum(entry.phase != "gauge" for entry in self.entries)

    def gauge(self, pid: int) -> dict[str, int]:
        """What a process said last of what it holds."""
        self.read()
        return next((e.figures for e in reversed(self.entries) if e.phase == "gauge" and e.pid == pid), {})

    def died(self, pid: int) -> float | None:
        """When a process told that it dies now."""
        self.read()
        return next((e.at for e in reversed(self.entries) if e.phase == "dying" and e.pid == pid), None)
