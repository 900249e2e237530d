"""The events that a relay has in hand: read, and not yet deleted.

They form chains, one for each key, that are sent one event after the other. The next events are read while these are
sent. A key that is given up leaves the hand as a whole, and so do events of it that are being read at that moment: they
come after those that were given up, which a later read brings first.
"""

import asyncio
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from ..sql import Row

Chain: TypeAlias = deque[tuple[Row, float]]
"""Events of one key, each with the time at which it was written, by the monotonic clock."""


@dataclass(frozen=True, slots=True)
class Noting:
    """What is to be noted in the database: the numbers of confirmed events, and the refused ones with their errors."""

    confirmed: tuple[int, ...]
    refused: dict[int, tuple[Row, Exception]]


class Hand:
    """The events in hand: `unsent` of them, those that are confirmed, and those that were refused."""

    def __init__(self) -> None:
        self.unsent = 0
        self.confirmed: list[int] = []
        self.refused: dict[int, tuple[Row, Exception]] = {}
        self.ages: list[float] = []
        """Seconds from the writing of each confirmed event to its confirm, since they were last taken."""
        self._chains: dict[str, Chain] = {}
        self._waiting: deque[str] = deque()
        self._given_up: set[str] = set()
        self._few = 0
        self._are_few = asyncio.Event()

    def __bool__(self) -> bool:
        return bool(self.unsent or self.confirmed or self.refused)

    def add(self, rows: Iterable[Row]) -> int:
        """Put events at the ends of their chains. Returns how many chains wait to be sent."""
        now = time.monotonic()
        for row in rows:
            lane = lane_of(row)
            if lane in self._given_up:
                continue
            if lane not in self._chains:
                self._chains[lane] = deque()
                self._waiting.append(lane)
            self._chains[lane].append((row, now - row[13]))
            self.unsent += 1
        return len(self._waiting)

    def begin(self) -> tuple[str, Chain] | None:
        """Return the next chain to send, and its key."""
        if not self._waiting:
            return None
        lane = self._waiting.popleft()
        return lane, self._chains[lane]

    def confirm(self, lane: str) -> None:
        """Note that the first event of a chain is confirmed."""
        row, written = self._chains[lane].popleft()
        self.confirmed.append(row[0])
        self.ages.append(time.monotonic() - written)
        if not self._chains[lane]:
            del self._chains[lane]
        self._sent(1)

    def refuse(self, lane: str, error: Exception) -> None:
        """Note that the first event of a chain was refused, and give up the chain."""
        row, _ = self._chains[lane][0]
        self.refused[row[0]] = row, error
        self.give_up(lane)

    def give_up(self, lane: str) -> None:
        """Leave the events of a chain to a later read."""
        self._given_up.add(lane)
        self._sent(len(self._chains.pop(lane)))

    def reading(self) -> list[int]:
        """Return the numbers that a read which begins now is to leave out. What was given up before is read again."""
        self._given_up.clear()
        return [row[0] for chain in self._chains.values() for row, _ in chain]

    def noting(self) -> Noting:
        """Return what is to be noted now. It stays in hand until `noted`."""
        return Noting(tuple(self.confirmed), dict(self.refused))

    def noted(self, noting: Noting) -> None:
        del self.confirmed[: len(noting.confirmed)]
        for seq in noting.refused:
            del self.refused[seq]

    def take_ages(self) -> tuple[float, ...]:
        ages, self.ages = tuple(self.ages), []
        return ages

    async def until_few(self, few: int) -> None:
        """Wait until at most `few` events are unsent."""
        self._few = few
        while self.unsent > few:
            self._are_few.clear()
            await self._are_few.wait()

    def _sent(self, count: int) -> None:
        self.unsent -= count
        if self.unsent <= self._few:
            self._are_few.set()


def lane_of(row: Row) -> str:
    """Return the key of an event; without one each event is its own."""
    return str(row[4] if row[4] is not None else row[1])
