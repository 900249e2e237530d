"""The claims of one handler's events: from an event to the right to run its handler."""

from asyncio import CancelledError
from contextlib import suppress
from typing import Any, Final, Protocol, assert_never

from ..config import Settings
from ..events import Incoming, forced_by, headers
from ..idempotency import (
    Acquired,
    Answer,
    Busy,
    Claim,
    Done,
    Mismatch,
    StoreUnavailable,
    Suspect,
    WorkerClaims,
    claim_scope,
    fingerprint_of,
    identity_digest,
    in_text,
)
from ..telemetry import ClaimResult, CrashSuspected, Emit
from .errors import FingerprintMismatch
from .handler import HandlerSpec
from .outcome import AlreadyDone, ClaimsUnavailable, HeldElsewhere, Interrupted, Outcome, Ready, Refused
from .slots import Slot


class Claimed:
    """What came of asking for a claim: an outcome, the claim to be ended, if there may be one, and for the metrics the
    answer and the seconds it took."""

    __slots__ = ("claim", "outcome", "result", "seconds")

    def __init__(
        self, outcome: Outcome, claim: Claim | None = None, result: ClaimResult | None = None, seconds: float = 0.0
    ) -> None:
        self.outcome, self.claim, self.result, self.seconds = outcome, claim, result, seconds


NOT_CLAIMED: Final = Claimed(Ready(None))


class Claims(Protocol):
    """Claims as a delivery sees them. A claim that may be held is ended in the worker's store."""

    async def acquire(self, incoming: Incoming, ready: Ready, slot: Slot) -> Claimed:
        """Ask for the right to handle an event. Raises nothing: a cancellation is an outcome too."""
        ...


class Unclaimed:
    """The claims of a handler that is not idempotent: it runs however often an event comes. See `Claims`."""

    async def acquire(self, incoming: Incoming, ready: Ready, slot: Slot) -> Claimed:
        return Claimed(ready)


class HandlerClaims:
    """Claims in the worker's store. See `Claims`."""

    def __init__(self, spec: HandlerSpec, store: WorkerClaims, settings: Settings, emit: Emit) -> None:
        self._spec, self._store, self._emit = spec, store, emit
        self._scope, self._max_crashes = claim_scope(settings.idempotency.prefix, spec.queue), spec.retry.max_crashes
        self._pauses, self._time = spec.pauses(settings), store.clock.precise

    async def acquire(self, incoming: Incoming, ready: Ready, slot: Slot) -> Claimed:
        """An event whose last run ended with its process is a suspect: it is claimed again once it is alone.

        An id that is a guess is not claimed: another event may have the same.
        """
        if not incoming.has_id and self._spec.key is None:
            return Claimed(ready)
        try:
            digest, fingerprint = digests_of(self._spec, incoming, ready.event)
        except Exception as error:  # noqa: BLE001 (the user's key function)
            return Claimed(Refused(error, "refused"))
        store = self._store
        claim = Claim(self._scope + in_text(digest), next(store.tokens), fingerprint, store.lease.owner)
        most, time, seconds, began = self._max_crashes, self._time, 0.0, self._time()
        try:
            answer = await self._store.claim(claim, alone=False, max_crashes=most)
            seconds = time() - began
            if type(answer) is Suspect:
                self._emit(CrashSuspected(self._spec.queue, incoming.metadata.event_id, answer.crashes))
                await slot.alone()
                began = time()
                answer = await self._store.claim(claim, alone=True, max_crashes=most)
                seconds += time() - began
        except StoreUnavailable:
            answer = None
        except CancelledError:  # the store may hold the claim already
            return Claimed(Interrupted(), claim, None, seconds)
        if answer is None:
            return await self._without_store(ready)
        if type(answer) is Acquired:
            outcome = Ready(ready.event, answer.crashes) if answer.crashes else ready
            return Claimed(outcome, claim, "acquired", seconds)
        return _not_acquired(answer, seconds)

    async def _without_store(self, ready: Ready) -> Claimed:
        if not self._pauses:
            return Claimed(ready, None, "unprotected")
        with suppress(CancelledError):  # it is given back either way
            await self._store.until_paused()
        return Claimed(ClaimsUnavailable(), None, "unavailable")


def digests_of(spec: HandlerSpec, incoming: Incoming, event: Any) -> tuple[bytes, bytes]:
    """Return the digest of an event's identity, and the fingerprint of its payload. The identity is its source and its
    id by default; `key=` of the handler may name another."""
    message, metadata = incoming.message, incoming.metadata
    own_key = None if spec.key is None else spec.key_of(event)
    identity: tuple[str, ...] = (metadata.source, metadata.event_id) if own_key is None else ("key", "", own_key)
    if headers.REPLAY_FORCED in message.headers and (forced := forced_by(message.headers)) is not None:
        identity = (*identity, "forced", forced)
    return identity_digest(*identity), fingerprint_of(message, metadata, own_key=own_key is not None)


def _not_acquired(answer: Answer, seconds: float) -> Claimed:
    match answer:
        case Done():
            return Claimed(AlreadyDone(), None, "duplicate", seconds)
        case Mismatch():
            error = FingerprintMismatch("this key came before, with another payload")
            return Claimed(Refused(error, "fingerprint-mismatch"), None, "mismatch", seconds)
        case Busy(free_in):
            return Claimed(HeldElsewhere(free_in), None, "busy", seconds)
        case Acquired() | Suspect():
            raise RuntimeError(f"the claim store answered {answer} to a claim made alone")
        case _:
            assert_never(answer)
