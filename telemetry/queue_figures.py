"""Figures of one queue, counted for each message: compiled, unlike the facts, which are classes made by a base."""

from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class QueueFigures:
    """Figures about one queue that its consumer keeps up to date in place; listeners read them when they need them.

    `received` counts deliveries taken from the broker, `in_flight` those that have a slot and have not ended yet.
    `attached` is True while the broker delivers from the queue.

    Of a queue that `is_ordered`: `owned` is 1 in the process that owns it; there `parked` events are in its ledger,
    `held` keys wait for a dead letter, and the event that began last had waited `lane_wait` seconds for its turn.
    `waiting` keys wait for a time, `moving` entries are being written; `in_hand` and `in_ledger` count the messages of
    queue and ledger.
    """

    queue: str
    received: int = 0
    in_flight: int = 0
    attached: bool = False
    is_ordered: bool = False
    owned: int = 0
    parked: int = 0
    held: int = 0
    lane_wait: float = 0.0
    waiting: int = 0
    moving: int = 0
    in_hand: int = 0
    in_ledger: int = 0
