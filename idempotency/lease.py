"""A worker's right to its claims: one heartbeat for all of them, from a thread that a blocked loop does not stop."""

import asyncio
import math
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ..telemetry import ClaimsLost, Emit, LeaseLost, LeaseTaken
from .port import Heart, StoreUnavailable

_SAFE = 0.8  # of a lease: by our own clock it is lost then, before anybody else's may say so


class Lease:
    """Kept alive by a beat every third of `seconds`. One that was lost is followed by a new incarnation, whose claims
    are its own; those of the lost one may be taken over.

    With `seconds` None it is never lost: where owner and store share a process they die together.
    """

    def __init__(self, heart: Heart, *, seconds: float | None, emit: Emit) -> None:
        self._heart = heart
        self._seconds = seconds if seconds is not None else math.inf
        self._emit = emit
        self._beaten = -math.inf  # when the last beat that arrived was sent
        self._due = threading.Event()  # the next beat, before its time
        self._is_stopped = False
        self._thread: threading.Thread | None = None
        self._tell: Callable[..., object] = lambda *_: None
        self.owner = secrets.token_bytes(8)
        self.on_trouble: Callable[[StoreUnavailable], object] = lambda error: None
        """Called on the loop with each beat that does not arrive although the one before it did not either."""
        self.problem = ""
        """Why the last beat did not arrive; empty where it did."""

    def holds(self, owner: bytes | None = None) -> bool:
        """Whether `owner`, this incarnation by default, is alive for certain."""
        return owner in (None, self.owner) and time.monotonic() - self._beaten < _SAFE * self._seconds

    async def start(self) -> None:
        """Beat once, then in the background. A store that is away is tried again there."""
        self._tell = asyncio.get_running_loop().call_soon_threadsafe
        if self._seconds == math.inf:
            self._beat()
        else:
            await asyncio.to_thread(self._beat)
            self._thread = threading.Thread(target=self._run, name="holdfast-lease", daemon=True)
            self._thread.start()

    def beat_soon(self) -> None:
        """The store lost keys, so perhaps the heartbeat: until it is there again, others may take the claims over."""
        self._due.set()

    async def stop(self) -> None:
        """End it: every claim that is left is free at once."""
        self._is_stopped = True
        self._due.set()
        self._tell = lambda *_: None
        self._beaten = -math.inf
        if self._seconds == math.inf:
            self._heart.stop(self.owner)
        else:
            await asyncio.to_thread(self._end)

    def _end(self) -> None:
        if self._thread is not None:
            self._thread.join()
        with suppress(StoreUnavailable):  # it ends by itself
            self._heart.stop(self.owner)

    def _run(self) -> None:
        while not self._is_due_to_stop():
            if self._beaten > -math.inf and not self.holds():
                self._begin_anew()
            self._beat()

    def _is_due_to_stop(self) -> bool:
        """Wait until the next beat is due, or the end; returns whether it is the end."""
        self._due.wait(self._pause())
        self._due.clear()
        return self._is_stopped

    def _pause(self) -> float:
        """A beat that did not arrive is soon tried again; one that did, a third of a lease later."""
        fresh = time.monotonic() - self._beaten < self._seconds / 3
        return self._seconds / 3 if fresh else min(1.0, self._seconds / 15)

    def _beat(self) -> None:
        sent, owner = time.monotonic(), self.owner
        is_first = self._beaten == -math.inf
        try:
            was_there = self._heart.beat(owner, self._seconds)
        except Exception as error:  # noqa: BLE001 (with this thread, the lease would end for good)
            if self.problem:  # the second in a row: nobody may ask for a claim for hours
                self._say_with(self.on_trouble, error if isinstance(error, StoreUnavailable) else _unforeseen(error))
            self.problem = str(error) or type(error).__name__
            return
        self._beaten, self.problem = sent, ""
        if is_first:
            self._say(LeaseTaken(owner.hex()))
        elif not was_there:
            self._say(ClaimsLost("the worker's heartbeat was gone before its time: the store lost keys"))

    def _begin_anew(self) -> None:
        lost = self.owner
        self.owner, self._beaten = secrets.token_bytes(8), -math.inf
        self._say(LeaseLost(lost.hex(), self._seconds))

    def _say(self, fact: LeaseTaken | LeaseLost | ClaimsLost) -> None:
        self._say_with(self._emit, fact)

    def _say_with(self, listener: Callable[[Any], object], told: object) -> None:
        with suppress(RuntimeError):  # the loop has closed
            self._tell(listener, told)


def _unforeseen(error: Exception) -> StoreUnavailable:
    return StoreUnavailable(f"the heartbeat failed: {type(error).__name__}: {error}")
