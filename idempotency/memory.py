"""Claims in this process's memory: for tests, for `memory://` brokers, and as the plainest statement of the rules."""

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from .board import LIFE, Mark, MemoryBoard
from .port import Acquired, Answer, Busy, Claim, Completion, Done, Mismatch, Suspect


@dataclass(frozen=True, slots=True)
class _Record:
    state: Literal["running", "resting", "done"]
    claim: Claim
    crashes: int
    expires: float


class MemoryClaims:
    """A store and a heart on one clock (seconds, monotonic)."""

    def __init__(self, *, ttl: float, clock: Callable[[], float]) -> None:
        self._ttl = ttl
        self._clock = clock
        self._records: OrderedDict[str, _Record] = OrderedDict()  # the least lately written first
        self._alive: dict[bytes, float] = {}
        self.board = MemoryBoard(clock)

    async def claim(self, claim: Claim, *, alone: bool = False, max_crashes: int = 3) -> Answer:
        known = self._find(claim.key)
        if known is None:
            self._write("running", claim, crashes=0)
            return Acquired()
        if known.claim.token == claim.token and known.state == "running":
            return Acquired(known.crashes)
        if known.claim.fingerprint != claim.fingerprint:
            return Mismatch()
        if known.state == "done":
            return Done()
        crashes = known.crashes
        if known.state == "running":
            if (left := self._life_of(known.claim.owner)) > 0:
                return Busy(left, known.claim.token)
            crashes += 1
            self._write("resting", known.claim, crashes)
        if alone or crashes >= max_crashes:
            self._write("running", claim, crashes)
            return Acquired(crashes)
        return Suspect(crashes)

    async def complete(self, claim: Claim, mark: Mark | None = None) -> Completion:
        known = self._find(claim.key)
        if known is not None and known.claim.token != claim.token:
            return "fenced"
        self._write("done", claim, crashes=0)
        if mark is not None:
            await self.board.mark(*mark, life=LIFE)
        return "absent" if known is None else "recorded"

    async def release(self, claim: Claim, *, forget: bool = False) -> None:
        known = self._find(claim.key)
        if known is None or known.state != "running" or known.claim.token != claim.token:
            return
        if known.crashes and not forget:
            self._write("resting", claim, known.crashes)
        else:
            del self._records[claim.key]

    async def close(self) -> None:
        """Nothing to close: the memory is the process's."""

    def beat(self, owner: bytes, seconds: float) -> bool:
        was_alive = self._life_of(owner) > 0
        self._alive[owner] = self._clock() + seconds
        return was_alive

    def stop(self, owner: bytes) -> None:
        self._alive.pop(owner, None)

    def _life_of(self, owner: bytes) -> float:
        return self._alive.get(owner, -math.inf) - self._clock()

    def _find(self, key: str) -> _Record | None:
        known = self._records.get(key)
        if known is not None and known.expires <= self._clock():
            del self._records[key]
            return None
        return known

    def _write(self, state: Literal["running", "resting", "done"], claim: Claim, crashes: int) -> None:
        now = self._clock()
        self._records[claim.key] = _Record(state, claim, crashes, now + self._ttl)
        self._records.move_to_end(claim.key)
        while (oldest := next(iter(self._records.values()))).expires <= now:
            del self._records[oldest.claim.key]
