"""A store that may become unavailable, and recover: what waits for it, and when it is probed."""

import asyncio
import math
from collections.abc import Callable

from ..broker import Clock, Pause, sleep
from ..events import ConfigurationError, HoldfastError
from ..telemetry import Emit, end, heed_cancellation, keep_running

_STEADY = 10.0  # seconds a store has to serve, or it is probed later after its next outage
_FIRST_PROBE = Pause(0.1, 10.0)  # of an outage; it grows with each short recovery before it
_NEXT_PROBE = Pause(0.1, 1.0)


class StoreUnavailable(HoldfastError):
    """The claim store gave no answer in time, or cannot give one now. Whether it did what was asked is unknown."""


class Availability:
    """Whether a store can be used. `error` says why it is unavailable since `unavailable_since`, by the clock.

    `reason` names it in facts. `changes` is set when `error` changes; stores that are followed together share it.
    `luck` gives 0 to 1, where jitter falls.
    """

    reason = "claim store"

    def __init__(
        self,
        clock: Clock,
        luck: Callable[[], float],
        emit: Emit,
        unavailable: type[HoldfastError],
        changes: asyncio.Event | None,
    ) -> None:
        self.error: str | None = None
        self.unavailable_since = 0.0
        self.changes = changes or asyncio.Event()
        self.clock = clock
        self._luck = luck
        self._emit = emit
        self._unavailable = unavailable
        self._paused = asyncio.Event()
        self._may_pause = True
        self._back_since = -math.inf
        self._short_recoveries = 0  # in a row
        self._recovery: asyncio.Task[None] | None = None

    def note_outage(self, error: HoldfastError) -> None:
        """Begin an outage, unless there is one already."""
        if self._recovery is None:
            self.error, self.unavailable_since = str(error), self.clock.time()
            self._paused.clear()
            self.changes.set()
            recovering = keep_running("recovery", self._recover, self._emit)
            self._recovery = asyncio.create_task(recovering, name=f"holdfast {self.reason} recovery")

    async def changed(self) -> None:
        """Return when `error` has changed since this returned last."""
        await self.changes.wait()
        self.changes.clear()

    def followed(self, error: str | None) -> None:
        """Note that the worker consumes as this state of the store asks for."""
        if error is not None:
            self._paused.set()

    def stop_pausing(self) -> None:
        """Note that the worker takes no more deliveries: none has to wait for it to pause."""
        self._may_pause = False
        self._paused.set()

    async def until_paused(self) -> None:
        """Return once the worker has paused for the outage, or the outage is over: a delivery that is given back
        before that comes again at once."""
        if self._may_pause:
            await self._paused.wait()

    async def stop_recovery(self) -> None:
        """Probe the store no more."""
        if self._recovery is not None:
            await end({self._recovery}, patience=0)

    async def probe(self) -> None:
        """Use the store. Raises the error of one that is unavailable."""
        raise NotImplementedError

    async def _recover(self) -> None:
        is_short = self.clock.time() - self._back_since < _STEADY
        self._short_recoveries = self._short_recoveries + 1 if is_short else 0
        failures = 0
        while True:
            heed_cancellation()
            pause = _NEXT_PROBE if failures else _FIRST_PROBE
            await sleep(self.clock, pause.seconds(self._short_recoveries + failures, self._luck()))
            try:
                await self.probe()
                break
            except (self._unavailable, ConfigurationError) as error:  # a login may be refused until it is there
                self.error = str(error)
                failures += 1
        self.error, self._recovery, self._back_since = None, None, self.clock.time()
        self._paused.set()
        self.changes.set()
