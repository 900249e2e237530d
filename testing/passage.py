"""How time passes for the workers of a harness: not at all while anything moves, and then at once."""

import asyncio
from collections.abc import Sequence

from .replica import Replica, Stage

__tracebackhide__ = True


class Passage:
    """Over the replicas there are at the time."""

    def __init__(self, stage: Stage, replicas: Sequence[Replica]) -> None:
        self._stage = stage
        self._replicas = replicas

    async def settle(self, within: float) -> None:
        """See `Harness.settle`."""
        clock, server = self._stage.clock, self._stage.server
        limit = clock.time() + within
        while True:
            if not await self.quiet():
                self._pass_to(clock.next_due(), limit, within)
            elif self._stage.faults.hand_on():
                pass
            elif server.is_waiting:
                self._pass_to(clock.next_due(), limit, within)
            else:
                return

    async def advance(self, seconds: float) -> None:
        """See `Harness.advance`."""
        clock = self._stage.clock
        target = clock.time() + seconds
        await self.quiet()
        while (due := clock.next_due()) is not None and due <= target:
            clock.advance_to(due)
            await self.quiet()
        clock.advance_to(target)
        await self.quiet()

    async def quiet(self) -> bool:
        """Return once nothing moves: True, or False where something hangs."""
        changed = self._stage.seen.changed
        while any(replica.is_busy for replica in self._replicas):
            changed.clear()
            try:
                async with asyncio.timeout(self._stage.patience):
                    await changed.wait()
            except TimeoutError:
                return False
        return True

    def _pass_to(self, due: float | None, limit: float, within: float) -> None:
        if due is None or due > limit:
            waiting = sorted(self._stage.server.resting())
            raise AssertionError(f"not settled within {within:.0f} s; still to come: {waiting[:20]}")
        self._stage.clock.advance_to(due)
