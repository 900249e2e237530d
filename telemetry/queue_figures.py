"""Figures of one queue, counted for each message: compiled, unlike the facts, which are classes made by a base."""

from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class QueueFigures:
    """Figures about one queue that its consumer keeps up to date in place; listeners read them when they need them.

    `received` counts deliveries taken from the broker, `in_flight` those that have a slot and have not ended yet.
    `attached` is True while the broker delivers from the queue.

    An ordered queue has `partitions`; the event of it that began last had waited `lane_wait` seconds for its turn.
    """

    queue: str
    received: int = 0
    in_flight: int = 0
    attached: bool = False
    lane_wait: float = 0.0
    partitions: "tuple[PartitionFigures, ...]" = ()

    def of_order(self) -> tuple[float, float, float, float]:
        """Return the events that are parked, the keys that are held, the partitions that this process owns, and
        `lane_wait`."""
        parts = self.partitions
        owned = sum(part.owned for part in parts if not part.is_intake)
        return sum(part.parked for part in parts), sum(part.held for part in parts), owned, self.lane_wait


@dataclass(slots=True, eq=False)
class PartitionFigures:
    """Figures about one queue of an ordered handler and its ledger, in the process that owns them: there `owned` is 1.

    `parked` events are in the ledger, `held` keys wait for a dead letter. `waiting` keys wait for a time, `moving`
    messages are being written; `in_hand` and `in_ledger` count the messages of queue and ledger. An intake hands its
    events on to the partitions.
    """

    queue: str
    is_intake: bool = False
    owned: int = 0
    parked: int = 0
    held: int = 0
    waiting: int = 0
    moving: int = 0
    in_hand: int = 0
    in_ledger: int = 0

    def clear(self) -> None:
        """Note that the queue is another process's now."""
        self.owned = self.parked = self.held = self.waiting = 0
        self.moving = self.in_hand = self.in_ledger = 0
