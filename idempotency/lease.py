"""A worker's right to its claims: one heartbeat for all of them, from a thread that a blocked loop does not stop."""

import asyncio
import math
import secrets
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ..broker import REAL, Clock
from ..telemetry import ClaimsLost, Emit, LeaseLost, LeaseTaken, keep_turning
from .availability import StoreUnavailable
from .port import Heart

_PATIENCE = 3.0  # seconds to wait for the first heartbeat, and for the end of the lease
_SAFE = 0.8  # of a lease: after that we stop, before another worker may take the claims over


class Lease:
    """Kept alive by a heartbeat every third of `seconds`. A lost lease is followed by one of another `owner`, whose
    claims are its own; those of the lost one may be taken over.

    With `seconds` None it is never lost: an owner and a store that share a process die together.
    """

    def __init__(self, heart: Heart, *, seconds: float | None, emit: Emit) -> None:
        self._heart = heart
        self._seconds = seconds if seconds is not None else math.inf
        self._emit = emit
        self.clock: Clock = REAL
        self._renewed = -math.inf  # when the last heartbeat that arrived was sent
        self.safe_until = math.inf if seconds is None else -math.inf
        """Until when, by `clock`, this owner is alive for certain."""
        self._due = threading.Event()  # the next heartbeat, before its time
        self._is_stopped = False
        self._has_beaten, self._has_ended = asyncio.Event(), asyncio.Event()
        self._thread: threading.Thread | None = None
        self._call_on_loop: Callable[..., object] = lambda *_: None
        self.owner = secrets.token_bytes(8)
        self.on_failure: Callable[[StoreUnavailable], object] = lambda error: None
        """Called on the event loop from the second failed heartbeat in a row on."""
        self.error = ""
        """Why the last heartbeat failed; empty if it arrived."""

    def holds(self, owner: bytes | None = None) -> bool:
        """Return whether `owner`, the present one by default, is alive for certain."""
        return owner in (None, self.owner) and self.clock.precise() < self.safe_until

    async def start(self) -> None:
        """Send heartbeats in the background, and return with the first one; where it does not arrive, without it."""
        self._call_on_loop = asyncio.get_running_loop().call_soon_threadsafe
        if self._seconds == math.inf:
            self._beat()
        else:
            self._thread = threading.Thread(target=self._live, name="holdfast-lease", daemon=True)
            self._thread.start()
            await _within(_PATIENCE, self._has_beaten)

    def renew_now(self) -> None:
        """Send a heartbeat at once: the store lost keys, perhaps this one, and until it is there again others may take
        the claims over."""
        self._due.set()

    async def stop(self) -> None:
        """End the lease: every claim that is left is free at once."""
        self._is_stopped = True
        self._due.set()
        self._renewed = self.safe_until = -math.inf
        if self._seconds == math.inf:
            self._heart.stop(self.owner)
        elif self._thread is not None:
            await _within(_PATIENCE, self._has_ended)
        self._call_on_loop = lambda *_: None

    def _live(self) -> None:
        keep_turning("heartbeat", self._run, lambda fact: self._report(self._emit, fact))
        self._renewed = self.safe_until = -math.inf
        with suppress(Exception):  # it ends by itself
            self._heart.stop(self.owner)
        self._report(lambda _: self._has_ended.set(), None)

    def _run(self) -> None:
        self._beat()
        self._report(lambda _: self._has_beaten.set(), None)
        while not self._is_due_to_stop():
            if self._renewed > -math.inf and not self.holds():
                self._change_owner()
            self._beat()

    def _is_due_to_stop(self) -> bool:
        """Wait until the next heartbeat is due, or the end; return whether it is the end."""
        self._due.wait(self._pause())
        self._due.clear()
        return self._is_stopped

    def _pause(self) -> float:
        """A heartbeat that failed is soon tried again; one that arrived is followed by the next a third of a lease
        later."""
        fresh = self.clock.precise() - self._renewed < self._seconds / 3
        return self._seconds / 3 if fresh else min(1.0, self._seconds / 15)

    def _beat(self) -> None:
        sent, owner = self.clock.precise(), self.owner
        is_first = self._renewed == -math.inf
        try:
            was_there = self._heart.beat(owner, self._seconds)
        except Exception as error:  # noqa: BLE001 (with this thread, the lease would end for good)
            if self.error:  # the second in a row: nobody may ask for a claim for hours
                self._report(self.on_failure, error if isinstance(error, StoreUnavailable) else _unforeseen(error))
            self.error = str(error) or type(error).__name__
            return
        self._renewed, self.safe_until, self.error = sent, sent + _SAFE * self._seconds, ""
        if is_first:
            self._report(self._emit, LeaseTaken(owner.hex()))
        elif not was_there:
            lost = ClaimsLost("the worker's heartbeat was gone before its time: the store lost keys")
            self._report(self._emit, lost)

    def _change_owner(self) -> None:
        lost = self.owner
        self._renewed = self.safe_until = -math.inf
        self.owner = secrets.token_bytes(8)
        self._report(self._emit, LeaseLost(lost.hex(), self._seconds))

    def _report(self, listener: Callable[[Any], object], value: object) -> None:
        with suppress(RuntimeError):  # the loop has closed
            self._call_on_loop(listener, value)


async def _within(seconds: float, event: asyncio.Event) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


def _unforeseen(error: Exception) -> StoreUnavailable:
    return StoreUnavailable(f"the heartbeat failed: {type(error).__name__}: {error}")
