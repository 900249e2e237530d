"""The claims of one worker on a store that may become unavailable, and recover."""

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Callable
from itertools import count, repeat
from typing import Final, Literal, TypeAlias

from ..broker import Clock
from ..telemetry import ClaimsEndangered, Emit
from .availability import Availability, StoreUnavailable
from .board import Mark
from .keys import claim_key
from .open import OpenClaims
from .port import Answer, Busy, Claim, Completion

_BACKLOG: Final = 10_000  # ends of claims that are kept for a store that is unavailable
_ENDED: Final = 10_000  # ends of claims that are remembered
_CHUNK: Final = 500

Completed: TypeAlias = Completion | Literal["unrecorded"]
End: TypeAlias = Literal["complete", "release", "forget"]
Ends: TypeAlias = OrderedDict[bytes, tuple[Claim, End]]
"""How claims ended, by their tokens."""


class WorkerClaims(Availability):
    """The claims of one worker, in a store.

    A call fails with its connection, or without an answer within twice `HOLDFAST_IDEMPOTENCY__TIMEOUT` (of several
    hosts, longer: `redis/clients.py`). Then the store counts as unavailable: further claims raise `StoreUnavailable` at
    once, and a task probes the store until it answers. Completions and releases are still sent, since a Redis that is
    out of memory accepts them; those that fail are repeated when the store is back.
    """

    def __init__(self, opened: OpenClaims, *, prefix: str, clock: Clock, luck: Callable[[], float], emit: Emit) -> None:
        super().__init__(clock, luck, emit, StoreUnavailable, None)
        self.tokens = map(int.to_bytes, count(int.from_bytes(secrets.token_bytes(8)) >> 1), repeat(8))
        """A token for each claim, unlike those of any other worker."""
        self.lease = opened.lease
        self.lease.clock, self.lease.on_failure = clock, self.mark_unavailable
        self._store = opened.store
        self._findings = opened.findings
        self._known: set[str] = set()  # findings that were reported
        self._emit = emit
        self._prefix = prefix
        self._backlog: Ends = OrderedDict()
        self._ended: Ends = OrderedDict()

    async def claim(self, claim: Claim, *, alone: bool, max_crashes: int) -> Answer:
        """Ask the store for a claim. Raises `StoreUnavailable`; the store may have noted the claim all the same, so it
        is released when the store is back."""
        if self.error is not None:
            raise StoreUnavailable(self.error)
        lease = self.lease
        if claim.owner != lease.owner or self.clock.precise() > lease.safe_until:
            raise self.mark_unavailable(self._no_heartbeat())
        try:
            answer = await self._store.claim(claim, alone=alone, max_crashes=max_crashes)
            if type(answer) is Busy and (ended := self._ended.get(answer.token)) is not None:
                await self._end(*ended)  # the store has lost that, as a replica does that takes over too early
                answer = await self._store.claim(claim, alone=alone, max_crashes=max_crashes)
            return answer
        except StoreUnavailable as error:
            _keep(self._backlog, claim, "release", _BACKLOG)
            raise self.mark_unavailable(error) from None

    async def complete(self, claim: Claim, mark: Mark | None = None) -> Completed:
        """Record that the event is handled: now, or when the store is back. To hold the delivery until then would
        make a repeat nearly certain."""
        self._ended[claim.token] = (claim, "complete")
        if len(self._ended) > _ENDED:
            self._ended.popitem(last=False)
        try:
            completion = await self._store.complete(claim, mark)
        except StoreUnavailable as error:
            self.mark_unavailable(error)
            _keep(self._backlog, claim, "complete", _BACKLOG)
            return "unrecorded"
        if completion == "absent":
            self.lease.renew_now()
        return completion

    async def release(self, claim: Claim, *, forget: bool = False) -> None:
        """Free the event for another claim: now, or when the store is back."""
        end: End = "forget" if forget else "release"
        _keep(self._ended, claim, end, _ENDED)
        try:
            await self._store.release(claim, forget=forget)
        except StoreUnavailable as error:
            self.mark_unavailable(error)
            _keep(self._backlog, claim, end, _BACKLOG)

    def mark_unavailable(self, error: StoreUnavailable) -> StoreUnavailable:
        """Begin an outage, unless there is one already. Returns the error, to be raised."""
        self.note_outage(error)
        return error

    async def close(self, patience: float) -> None:
        """End the lease, after at most `patience` seconds for what is still to be recorded."""
        await self.stop_recovery()
        try:
            async with asyncio.timeout(patience):
                await self._flush_backlog()
        except (StoreUnavailable, TimeoutError):
            pass
        await self.lease.stop()
        await self._store.close()

    async def learn(self) -> None:
        """Ask the store about itself, which may be another one than before. What endangers the claims is reported.

        Raises `StoreUnavailable`, and `ConfigurationError` where it refuses the login or is not a claim store."""
        for finding in await self._findings():
            if finding.text not in self._known:
                self._known.add(finding.text)
                self._emit(ClaimsEndangered(finding.text))

    async def probe(self) -> None:
        """Make a claim, since a store may answer and yet accept none; then send what it has missed."""
        await self.learn()
        if not self.lease.holds():
            raise self._no_heartbeat()
        owner = self.lease.owner
        probe = Claim(claim_key(self._prefix, "probe", owner.hex()), next(self.tokens), bytes(8), owner)
        await self._store.claim(probe)
        await self._store.release(probe)
        await self._flush_backlog()

    def _no_heartbeat(self) -> StoreUnavailable:
        why = f": {self.lease.error}" if self.lease.error else ""
        return StoreUnavailable(f"the worker's heartbeat does not arrive{why}")

    async def _flush_backlog(self) -> None:
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


def _keep(ends: Ends, claim: Claim, end: End, limit: int) -> None:
    """Note how a claim ended. Beyond `limit` the oldest is forgotten."""
    ends[claim.token] = (claim, end)
    if len(ends) > limit:
        ends.popitem(last=False)
