"""The second act's books: each order is shipped, or declined, or taken back, and nothing is left between."""

from collections import Counter
from dataclasses import dataclass, field

from rich.table import Table

from .fulfilment import LOST, is_declined

SERVICES = ("charge", "reserve", "ship", "release", "refund")


@dataclass
class Ledger:
    """Filled from the log while the act runs, as `Account` is. `stages` are the ends of the sagas, by the database."""

    orders: set[int] = field(default_factory=set)
    effects: dict[str, Counter[int]] = field(default_factory=lambda: {name: Counter() for name in SERVICES})
    lives: dict[int, set[str]] = field(default_factory=dict)
    killed: set[str] = field(default_factory=set)
    stages: Counter[str] = field(default_factory=Counter)

    def note(self, listener: str, order: int, life: str) -> None:
        """Count what a service did for an order. `life` names this run of its worker."""
        self.effects[listener][order] += 1
        self.lives.setdefault(order, set()).add(life)

    def settled(self, outcome: str, handler: str, reason: str | None, event_id: str) -> None:
        """Count the end of a delivery: a dead letter would be a fault."""
        if outcome == "dead_lettered":
            self.stages[f"a dead letter of {handler} ({reason})"] += 1

    def wanted(self) -> dict[str, set[int]]:
        """Return the orders that each service has to see."""
        paid = {order for order in self.orders if not is_declined(order)}
        lost = self.orders & {LOST}
        return {"charge": paid, "reserve": paid, "ship": paid - lost, "release": lost, "refund": lost}

    def missing(self) -> list[str]:
        """Return what should have happened and has not, effects and ends alike."""
        wanted = self.wanted()
        lines = [f"{name}: order {n}" for name in SERVICES for n in sorted(wanted[name] - set(self.effects[name]))]
        shipped = len(wanted["ship"])
        ends = Counter({"shipped": shipped, "cancelled": len(self.orders) - shipped})
        return lines + [f"saga: {count} not {stage}" for stage, count in (ends - self.stages).items()]

    def surplus(self) -> list[str]:
        """Return what should not have happened: effects for other orders, ends too many, unexplained repeats."""
        wanted = self.wanted()
        lines = [f"{name}: order {n} too many" for name in SERVICES for n in set(self.effects[name]) - wanted[name]]
        lines += [
            f"{name}: order {order} ran twice for no reason"
            for name in SERVICES
            for order, times in self.effects[name].items()
            if times > 1 and not self.lives[order] & self.killed
        ]
        return lines + [f"saga: {stage}" for stage in self.stages if stage not in ("shipped", "cancelled")]

    def table(self) -> Table:
        """Return the books for people."""
        table = Table("orders", *SERVICES, "shipped", "cancelled", title="Every order accounted for")
        table.add_row(
            str(len(self.orders)),
            *(str(len(self.effects[name])) for name in SERVICES),
            str(self.stages["shipped"]),
            str(self.stages["cancelled"]),
        )
        return table
