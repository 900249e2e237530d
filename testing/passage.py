"""The passage of virtual time in a harness, from one moment at which something is due to the next."""

import asyncio
from collections.abc import Sequence

from .replica import Replica, Stage

__tracebackhide__ = True


class Passage:
    """Lets virtual time pass: waits until no worker moves, then goes on to the next alarm. `replicas` may change.

    Attributes:
        most_at_once: Deliveries that may end while no time passes; workers with more never come to an end.
    """

    def __init__(self, stage: Stage, replicas: Sequence[Replica]) -> None:
        self.most_at_once = 100_000
        self._stage = stage
        self._replicas = replicas
        self._moment, self._settled = 0.0, 0

    async def settle(self, within: float) -> None:
        """See `Harness.settle`."""
        clock, server = self._stage.clock, self._stage.server
        self._count_anew()
        limit = clock.time() + within
        while True:
            if not await self.quiet():
                await self._pass_to(clock.next_due(), limit, within)
            elif self._stage.faults.hand_on():
                pass
            elif server.is_waiting or any(replica.is_waiting for replica in self._replicas):
                await self._pass_to(clock.next_due(), limit, within)
            else:
                return await self._look()

    async def advance(self, seconds: float) -> None:
        """See `Harness.advance`."""
        clock = self._stage.clock
        target = clock.time() + seconds
        self._count_anew()
        await self.quiet()
        while (due := _first(clock.next_due(), await self._fire())) is not None and due <= target:
            clock.advance_to(due)
            await self.quiet()
        clock.advance_to(target)
        await self.quiet()
        await self._look()

    async def quiet(self) -> bool:
        """Return once nothing moves: True, or False where something hangs."""
        changed = self._stage.seen.changed
        while any(replica.is_busy for replica in self._replicas):
            self._check_count()
            changed.clear()
            try:
                async with asyncio.timeout(self._stage.patience):
                    await changed.wait()
            except TimeoutError:
                return False
        return True

    def _count_anew(self) -> None:
        self._moment, self._settled = self._stage.clock.time(), len(self._stage.seen.settled)

    def _check_count(self) -> None:
        if self._moment != self._stage.clock.time():
            self._count_anew()
        settled = self._stage.seen.settled
        if len(settled) - self._settled > self.most_at_once:
            last = ", ".join(sorted({fact.queue for fact in settled[-20:]}))
            raise AssertionError(
                f"not settled after {self.most_at_once} deliveries while no time passed, the last ones of {last}; "
                "do handlers publish to each other without a delay?"
            )

    async def _look(self) -> None:
        for replica in self._replicas:
            await replica.look()

    async def _fire(self) -> float | None:
        """Let the limits of sagas that are over have their consequences. Returns when the next one is."""
        dues = [await replica.fire() for replica in self._replicas]
        await self.quiet()
        return _first(*dues)

    async def _pass_to(self, due: float | None, limit: float, within: float) -> None:
        if due is None or due > limit:
            waiting = sorted(self._stage.server.resting())
            raise AssertionError(f"not settled within {within:.0f} s; still to come: {waiting[:20]}")
        self._stage.clock.advance_to(due)
        await self._fire()


def _first(*dues: float | None) -> float | None:
    return min((due for due in dues if due is not None), default=None)
