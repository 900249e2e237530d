"""The claims of one worker on a store that may become unavailable, and recover."""

import asyncio
import base64
import hashlib
import math
import secrets
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable
from itertools import count, repeat
from typing import Literal, TypeAlias

from ..broker import Clock, Pause, sleep
from ..events import ConfigurationError, Message, Metadata
from ..telemetry import ClaimsEndangered, Emit, keep_running
from .open import OpenClaims
from .port import Answer, Busy, Claim, Completion, StoreUnavailable

_BACKLOG = 10_000  # ends of claims that are kept for a store that is unavailable
_ENDED = 10_000  # ends of claims that are remembered
_CHUNK = 500
_SCOPE_LIMIT = 60  # characters of a queue's name in a key
_STEADY = 10.0  # seconds a store has to serve, or it is probed later after its next outage
_FIRST_PROBE = Pause(0.1, 10.0)  # of an outage; it grows with each short recovery before it
_NEXT_PROBE = Pause(0.1, 1.0)

Completed: TypeAlias = Completion | Literal["unrecorded"]
End: TypeAlias = Literal["complete", "release", "forget"]
Ends: TypeAlias = OrderedDict[bytes, tuple[Claim, End]]
"""How claims ended, by their tokens."""


class WorkerClaims:
    """The claims of one worker, in a store. `error` says why it is unavailable since `unavailable_since`, by the clock.

    After a failed call the store counts as unavailable: further claims raise `StoreUnavailable` at once, and a task
    probes the store until it answers. Completions and releases are still sent, since a Redis that is out of memory
    accepts them; those that fail are repeated when the store is back. `luck` gives 0 to 1, where jitter falls.
    """

    def __init__(self, opened: OpenClaims, *, prefix: str, clock: Clock, luck: Callable[[], float], emit: Emit) -> None:
        self.error: str | None = None
        self.unavailable_since = 0.0
        self.tokens = map(int.to_bytes, count(int.from_bytes(secrets.token_bytes(8)) >> 1), repeat(8))
        """A token for each claim, unlike those of any other worker."""
        self.lease = opened.lease
        self.lease.on_failure = self.mark_unavailable
        self._store = opened.store
        self._findings = opened.findings
        self._known: set[str] = set()  # findings that were reported
        self._emit = emit
        self._prefix = prefix
        self._clock = clock
        self._luck = luck
        self._changed = asyncio.Event()
        self._paused = asyncio.Event()
        self._may_pause = True
        self._back_since = -math.inf
        self._short_recoveries = 0  # in a row
        self._recovery: asyncio.Task[None] | None = None
        self._backlog: Ends = OrderedDict()
        self._ended: Ends = OrderedDict()

    async def claim(self, claim: Claim, *, alone: bool, max_crashes: int) -> Answer:
        """Ask the store for a claim. Raises `StoreUnavailable`; the store may have noted the claim all the same, so it
        is released when the store is back."""
        if self.error is not None:
            raise StoreUnavailable(self.error)
        lease = self.lease
        if claim.owner != lease.owner or time.monotonic() > lease.safe_until:
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

    async def complete(self, claim: Claim) -> Completed:
        """Record that the event is handled: now, or when the store is back. To hold the delivery until then would
        make a repeat nearly certain."""
        self._ended[claim.token] = (claim, "complete")
        if len(self._ended) > _ENDED:
            self._ended.popitem(last=False)
        try:
            completion = await self._store.complete(claim)
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
        if self._recovery is None:
            self.error, self.unavailable_since = str(error), self._clock.time()
            self._paused.clear()
            self._changed.set()
            recovering = keep_running("recovery", self._recover, self._emit)
            self._recovery = asyncio.create_task(recovering, name="holdfast claim store recovery")
        return error

    async def changed(self) -> None:
        """Return when `error` has changed since this returned last."""
        await self._changed.wait()
        self._changed.clear()

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

    async def close(self, patience: float) -> None:
        """End the lease, after at most `patience` seconds for what is still to be recorded."""
        if self._recovery is not None:
            self._recovery.cancel()
            await asyncio.wait({self._recovery})
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

    async def _recover(self) -> None:
        is_short = self._clock.time() - self._back_since < _STEADY
        self._short_recoveries = self._short_recoveries + 1 if is_short else 0
        failures = 0
        while True:
            pause = _NEXT_PROBE if failures else _FIRST_PROBE
            await sleep(self._clock, pause.seconds(self._short_recoveries + failures, self._luck()))
            try:
                await self.learn()
                await self._probe()
                await self._flush_backlog()
                break
            except (StoreUnavailable, ConfigurationError) as error:  # a login may be refused until it is there
                self.error = str(error)
                failures += 1
        self.error, self._recovery, self._back_since = None, None, self._clock.time()
        self._paused.set()
        self._changed.set()

    async def _probe(self) -> None:
        """Make a claim, since a store may answer and yet accept none."""
        if not self.lease.holds():
            raise self._no_heartbeat()
        owner = self.lease.owner
        probe = Claim(claim_key(self._prefix, "probe", owner.hex()), next(self.tokens), bytes(8), owner)
        await self._store.claim(probe)
        await self._store.release(probe)

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


def claim_key(prefix: str, scope: str, *identity: str) -> str:
    """Return `prefix:scope:digest`. The scope is the queue, which outlives renamed functions; a long one is digested.

    Each part of the identity is digested with its length before it: a sender decides what is in it, and must not
    decide where the next begins.
    """
    if len(scope) > _SCOPE_LIMIT:
        scope = f"{scope[: _SCOPE_LIMIT - 23]}~{claim_key('', '', scope)[2:]}"
    text = ""
    for part in identity:
        text += f"{len(part)}:{part}"
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    return f"{prefix}:{scope}:{base64.urlsafe_b64encode(digest).decode().rstrip('=')}"


def fingerprint_of(message: Message, metadata: Metadata, *, own_key: bool) -> bytes:
    """Return 8 bytes that differ between payloads.

    A derived id (UUIDv5, `ctx.publish`) stands for what its handler published at one place: a handler that ran
    twice may have written another time into it, and the id decides alone. See docs/decisions/0009.
    """
    event_id = metadata.event_id
    if not own_key and len(event_id) == 36 and event_id[14] == "5" and _is_derived(event_id):
        return bytes(8)
    return hashlib.blake2b(message.body, digest_size=8).digest()


def _is_derived(event_id: str) -> bool:
    """Return whether an id is a UUIDv5, as `derived_id` writes it."""
    try:
        return uuid.UUID(event_id).version == 5
    except ValueError:
        return False
