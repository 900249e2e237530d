"""From the settings to a store and a lease on it."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from ..config import Settings
from ..telemetry import Emit, TlsUnverified
from .availability import StoreUnavailable
from .board import Board
from .lease import Lease
from .memory import MemoryClaims
from .port import ClaimState, ClaimStore, Endangered, Heart

_shared: dict[tuple[asyncio.AbstractEventLoop, str], MemoryClaims] = {}


@dataclass(frozen=True, slots=True)
class OpenClaims:
    """`findings` says what endangers the claims, it raises `StoreUnavailable`, `ConfigurationError`. Without a `board`
    no request is followed."""

    store: ClaimStore
    lease: Lease
    findings: Callable[[], Awaitable[list[Endangered]]]
    board: Board | None = None


def open_claims(settings: Settings, emit: Emit) -> OpenClaims:
    """The store the settings name. It connects when it is first used. Call it on the worker's loop."""
    url, idempotency = settings.claims_url, settings.idempotency
    if url.startswith("memory:"):
        memory = shared(url, idempotency.ttl)
        return OpenClaims(memory, Lease(memory, seconds=None, emit=emit), _nothing, memory.board)

    from .redis import RedisClaims, RedisHeart

    if url.startswith("rediss") and not idempotency.verify:
        emit(TlsUnverified("HOLDFAST_IDEMPOTENCY__VERIFY"))
    store, heart = RedisClaims(url, idempotency), RedisHeart(url, idempotency)
    return OpenClaims(store, Lease(heart, seconds=idempotency.lease, emit=emit), store.findings, store.board)


def open_board(settings: Settings) -> tuple[Board, Callable[[], Awaitable[None]]]:
    """Return the boards of the store that the settings name, and what closes it. Call it on the loop that uses it."""
    url = settings.claims_url
    if url.startswith("memory:"):
        memory = shared(url, settings.idempotency.ttl)
        return memory.board, memory.close

    from .redis import RedisClaims

    store = RedisClaims(url, settings.idempotency)
    return store.board, store.close


async def claim_states(settings: Settings, keys: Sequence[str]) -> dict[str, ClaimState]:
    """Return the states of the claims with these keys that there are, for tools: nothing is changed.

    Raises `StoreUnavailable`, also for claims in memory, which no other process sees.
    """
    if settings.claims_url.startswith("memory:"):
        raise StoreUnavailable("they are in the memory of a worker")
    from .redis import states

    return await states(settings.claims_url, settings.idempotency, keys)


def no_claims() -> OpenClaims:
    """Return a store that nobody asks, for a worker whose handlers are not idempotent."""
    memory = MemoryClaims(ttl=1.0, clock=time.monotonic)
    return OpenClaims(memory, Lease(memory, seconds=None, emit=lambda fact: None), _nothing)


def open_heart(settings: Settings) -> Heart | None:
    """Where a supervisor declares the owner dead whose process it saw end. None where it died with its store."""
    if settings.claims_url.startswith("memory:"):
        return None
    from .redis import RedisHeart

    return RedisHeart(settings.claims_url, settings.idempotency)


def shared(url: str, ttl: float) -> MemoryClaims:
    """The claims of a `memory://` URL on the running loop."""
    return share(url, MemoryClaims(ttl=ttl, clock=asyncio.get_running_loop().time))


def share(url: str, claims: MemoryClaims) -> MemoryClaims:
    """Let these be the claims of a `memory://` URL on the running loop, unless it has some. Returns those it has."""
    for known in [known for known in _shared if known[0].is_closed()]:
        del _shared[known]
    return _shared.setdefault((asyncio.get_running_loop(), url), claims)


async def _nothing() -> list[Endangered]:
    return []
