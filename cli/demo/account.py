"""The demo's books: what was published, what became of it, and whether anything is missing."""

from collections import Counter
from dataclasses import dataclass, field

from rich.table import Table

from .shop import has_broken_bank

LISTENERS = ("charge", "reserve", "tell")


@dataclass
class Account:
    """Filled while the demo runs; `missing` and `surplus` are empty when every event is accounted for. `replayed`: how
    many dead letters were, once the bank was fixed. `killed`: the lives of workers that ended by a kill."""

    orders: set[int] = field(default_factory=set)
    effects: dict[str, Counter[int]] = field(default_factory=lambda: {name: Counter() for name in LISTENERS})
    lives: dict[int, set[str]] = field(default_factory=dict)
    outcomes: Counter[str] = field(default_factory=Counter)
    dead: Counter[tuple[str, str]] = field(default_factory=Counter)
    letters: Counter[tuple[str, str]] = field(default_factory=Counter)
    killed: set[str] = field(default_factory=set)
    replayed: int | None = None

    def note(self, listener: str, order: int, life: str) -> None:
        """Count what a handler did for an order. `life` names this run of its worker."""
        self.effects[listener][order] += 1
        self.lives.setdefault(order, set()).add(life)

    def settled(self, outcome: str, handler: str, reason: str | None, event_id: str) -> None:
        """Count the end of a delivery. An event that dies twice counts as one: a kill may leave two copies of it."""
        self.outcomes[outcome] += 1
        if outcome == "dead_lettered":
            self.letters[handler, event_id] += 1
            self.dead[handler, reason or "?"] += self.letters[handler, event_id] == 1

    def expected_dead(self) -> Counter[tuple[str, str]]:
        """Orders of the broken bank are given up on; each listener refuses the malformed message; payments does not
        know the unknown."""
        return Counter(
            {
                ("charge", "exhausted"): len(self.broken()),
                ("charge", "unreadable"): 1,
                ("charge", "unknown-type"): 1,
                ("reserve", "unreadable"): 1,
            }
        )

    def broken(self) -> set[int]:
        """The orders that cannot be charged at first."""
        return {order for order in self.orders if has_broken_bank(order)}

    def missing(self) -> list[str]:
        """What should have happened and has not."""
        charged = self.orders - (self.broken() if self.replayed is None else set())
        wanted = {"charge": charged, "reserve": self.orders, "tell": charged}
        lines = [
            f"{name}: order {order}" for name in LISTENERS for order in sorted(wanted[name] - set(self.effects[name]))
        ]
        lines += [f"{handler}: a dead letter ({reason})" for handler, reason in (self.expected_dead() - self.dead)]
        return lines

    def surplus(self) -> list[str]:
        """What should not have happened: dead letters too many, orders nobody placed, unexplained repeats."""
        lines = [
            f"{handler}: an unexpected dead letter ({reason})" for handler, reason in (self.dead - self.expected_dead())
        ]
        were_killed = {life.rpartition("-")[0] for life in self.killed}
        lines += [
            f"{handler}: event {event_id} died twice for no reason"
            for (handler, event_id), times in self.letters.items()
            if times > 1 and handler not in were_killed
        ]
        lines += [
            f"{name}: unknown order {order}" for name in LISTENERS for order in set(self.effects[name]) - self.orders
        ]
        lines += [
            f"{name}: order {order} ran twice for no reason"
            for name, order in self.repeats()
            if not self.lives[order] & self.killed
        ]
        return lines

    def repeats(self) -> list[tuple[str, int]]:
        """Effects that happened more than once: the kill struck between effect and ack, or what was sent came twice."""
        return [(name, order) for name in LISTENERS for order, times in self.effects[name].items() if times > 1]

    def table(self) -> Table:
        """For people."""
        table = Table(
            "", "handled", "dead-lettered", "replayed", "repeated", "missing", title="Every event accounted for"
        )
        missing = self.missing()
        for name in LISTENERS:
            dead = ", ".join(f"{n} {reason}" for (handler, reason), n in sorted(self.dead.items()) if handler == name)
            repeated = [str(order) for listener, order in self.repeats() if listener == name]
            lost = sum(1 for line in missing if line.startswith(f"{name}:"))
            replayed = str(self.replayed or 0) if name == "charge" else "0"
            handled = str(len(self.effects[name]))
            table.add_row(name, handled, dead or "0", replayed, ", ".join(repeated) or "0", str(lost))
        return table
