"""The claims of one running worker: made, ended, and made good in the background where the store was away."""

import asyncio
import math
import random
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Literal, TypeAlias

from ..events import random_bytes
from ..idempotency import Answer, Busy, Claim, Completion, OpenClaims, StoreUnavailable, claim_key
from .handler import HandlerSpec

_BACKLOG = 10_000
_REMEMBERED = 10_000
_CHUNK = 500
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 1.0
_STEADY, _LONGEST_LULL = 10.0, 10.0  # seconds the store has to serve; each time it did not, it is left alone longer

End: TypeAlias = Literal["complete", "release", "forget"]


def short_windows(handlers: Iterable[HandlerSpec], window: float) -> list[str]:
    """One line for each handler whose last retry may come after its event was forgotten."""
    return [
        f"handler {spec.name!r} may retry for {span:.0f} s, longer than HOLDFAST_IDEMPOTENCY__TTL={window:g}: "
        "an event may be forgotten before its last attempt; raise the one or lower the other"
        for spec in handlers
        if spec.idempotent and (span := spec.retry.span(spec.timeout, window)) > window
    ]


class Claiming:
    """One store seen by one worker. Once a question was not answered the store is away: `error` says why, no claim is
    made but a probe with jitter, and `on_change` is called when it goes and when it is back. What ends a claim is still
    tried: a store without memory takes it."""

    def __init__(self, opened: OpenClaims, *, prefix: str, on_change: Callable[[], None]) -> None:
        self.lease = opened.lease
        self.lease.on_trouble = self.goes_away
        self.error: str | None = None
        self.away_since = 0.0
        self._back_since = -math.inf
        self._brief = 0  # how often in a row it was back for less than steady
        self._store = opened.store
        self._prefix = prefix
        self._on_change = on_change
        self._recovery: asyncio.Task[None] | None = None
        self._backlog: OrderedDict[bytes, tuple[Claim, End]] = OrderedDict()
        self._ended: OrderedDict[bytes, tuple[Claim, End]] = OrderedDict()  # lately, by token

    def wish(self, key: str, fingerprint: bytes) -> Claim:
        """A claim to ask for, with a token of its own."""
        return Claim(key, random_bytes()[:8], fingerprint, self.lease.owner)

    async def claim(self, claim: Claim, *, alone: bool, max_crashes: int) -> Answer:
        """Raises `StoreUnavailable`. What the store may have noted all the same is released when it is back."""
        if self.error is not None:
            raise StoreUnavailable(self.error)
        if not self.lease.holds(claim.owner):
            raise self.goes_away(self._unheard())
        try:
            answer = await self._store.claim(claim, alone=alone, max_crashes=max_crashes)
            if isinstance(answer, Busy) and (ended := self._ended.get(answer.token)) is not None:
                await self._end(*ended)  # the store has lost that, as a replica does that takes over too early
                answer = await self._store.claim(claim, alone=alone, max_crashes=max_crashes)
            return answer
        except StoreUnavailable as error:
            self._later(claim, "release")
            raise self.goes_away(error) from None

    async def complete(self, claim: Claim) -> Completion | Literal["unrecorded"]:
        """Recorded now, or when the store is back: held up till then, the message would surely be handled again."""
        self._remember(claim, "complete")
        try:
            completion = await self._store.complete(claim)
        except StoreUnavailable as error:
            self.goes_away(error)
            self._later(claim, "complete")
            return "unrecorded"
        if completion == "absent":
            self.lease.beat_soon()
        return completion

    async def release(self, claim: Claim, *, forget: bool = False) -> None:
        """At once, or when the store is back."""
        self._remember(claim, "forget" if forget else "release")
        try:
            await self._store.release(claim, forget=forget)
        except StoreUnavailable as error:
            self.goes_away(error)
            self._later(claim, "forget" if forget else "release")

    def goes_away(self, error: StoreUnavailable) -> StoreUnavailable:
        """Pause, probe, and come back. Returns the error, to be raised."""
        if self._recovery is None:
            self.error, self.away_since = str(error), time.monotonic()
            self._recovery = asyncio.create_task(self._recover(), name="holdfast claim store recovery")
            self._on_change()
        return error

    async def close(self, patience: float) -> None:
        """End the lease, after one last try, for at most `patience` seconds, at what is still to be recorded."""
        if self._recovery is not None:
            self._recovery.cancel()
            await asyncio.wait({self._recovery})
        try:
            async with asyncio.timeout(patience):
                await self._make_good()
        except (StoreUnavailable, TimeoutError):
            pass
        await self.lease.stop()
        await self._store.close()

    def _remember(self, claim: Claim, end: End) -> None:
        self._ended[claim.token] = (claim, end)
        if len(self._ended) > _REMEMBERED:
            self._ended.popitem(last=False)

    def _later(self, claim: Claim, end: End) -> None:
        self._backlog[claim.token] = (claim, end)
        if len(self._backlog) > _BACKLOG:
            self._backlog.popitem(last=False)

    async def _recover(self) -> None:
        self._brief = self._brief + 1 if time.monotonic() - self._back_since < _STEADY else 0
        pause = min(_LONGEST_LULL, _FIRST_PAUSE * 2 ** min(self._brief, 16))
        while True:
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, _LONGEST_PAUSE)
            try:
                await self._probe()
                await self._make_good()
                break
            except StoreUnavailable as error:
                self.error = str(error)
        self.error, self._recovery, self._back_since = None, None, time.monotonic()
        self._on_change()

    async def _probe(self) -> None:
        """A claim, since a store may answer and yet take none."""
        if not self.lease.holds():
            raise self._unheard()
        probe = self.wish(claim_key(self._prefix, "probe", self.lease.owner.hex()), bytes(8))
        await self._store.claim(probe)
        await self._store.release(probe)

    def _unheard(self) -> StoreUnavailable:
        why = f": {self.lease.problem}" if self.lease.problem else ""
        return StoreUnavailable(f"the worker's heartbeat does not arrive{why}")

    async def _make_good(self) -> None:
        while self._backlog:
            chunk = list(self._backlog.values())[:_CHUNK]
            results = await asyncio.gather(*map(self._end, *zip(*chunk, strict=True)), return_exceptions=True)
            for (claim, _), result in zip(chunk, results, strict=True):
                if not isinstance(result, BaseException):
                    self._backlog.pop(claim.token, None)
            for result in results:
                if isinstance(result, BaseException):
                    raise result

    async def _end(self, claim: Claim, end: End) -> None:
        if end == "complete":
            await self._store.complete(claim)
        else:
            await self._store.release(claim, forget=end == "forget")
