"""What a claim is, what a store may answer, and the protocol of a store: one contract suite for all of them.

    from         step                                    to
    ----         ----                                    --
    absent       claim                                   running: owner, token, fingerprint
    running      complete, same token                    done for the window
    running      release, same token                     absent; resting, where it was part of a crash
    running      claim, the owner's heartbeat is gone    resting: one crash more
    resting      claim, alone or past `max_crashes`      running again, the crashes remembered
    done         its window is over                      absent

A store compares tokens, so a late owner changes nothing. Expiry is relative: no clocks of two machines are compared.
"""

import math
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from .board import Mark


@dataclass(slots=True, init=False)
class Claim:
    """A request to handle one event, and the proof of it for `complete` and `release`.

    `token` is new for each delivery and stays the same when a claim is sent again. `owner` is the incarnation of the
    worker. `fingerprint` is of the payload. Each has 8 bytes.
    """

    key: str
    token: bytes
    fingerprint: bytes
    owner: bytes

    def __init__(self, key: str, token: bytes, fingerprint: bytes, owner: bytes) -> None:
        self.key, self.token, self.fingerprint, self.owner = key, token, fingerprint, owner


@dataclass(frozen=True, slots=True)
class Acquired:
    """The event is ours to handle. `crashes`: how many processes died while it ran."""

    crashes: int = 0


@dataclass(frozen=True, slots=True)
class Suspect:
    """Its last run ended with its process, `crashes` times now: it is to run alone. Not acquired."""

    crashes: int


@dataclass(frozen=True, slots=True)
class Done:
    """It completed within the window."""


@dataclass(frozen=True, slots=True)
class Busy:
    """A worker that is alive holds it, with this token. Should it be dead, that is known in `seconds`."""

    seconds: float = math.inf
    token: bytes = b""


@dataclass(frozen=True, slots=True)
class Mismatch:
    """The same key was claimed with another payload."""


Answer: TypeAlias = Acquired | Suspect | Done | Busy | Mismatch
Completion: TypeAlias = Literal["recorded", "fenced", "absent"]
"""How a completion went: `fenced`, another owner holds or completed it; `absent`, the store had lost it, and has it
again."""


Danger: TypeAlias = Literal["redis-unread", "redis-old", "redis-evicts", "redis-forgets"]


@dataclass(frozen=True, slots=True)
class Endangered:
    """A property of a store that may make events repeat, by a stable code and in words."""

    code: Danger
    text: str


ClaimState: TypeAlias = Literal["running", "resting", "done"]
"""The states of a claim that there is."""


class ClaimStore(Protocol):
    """Where claims are kept. Every method may raise `StoreUnavailable`; each may be sent again with the same claim."""

    async def claim(self, claim: Claim, *, alone: bool = False, max_crashes: int = 3) -> Answer:
        """Claim an event. One that crashed is acquired only `alone`, or where `max_crashes` is reached: then it is
        not to run again."""
        ...

    async def complete(self, claim: Claim, mark: Mark | None = None) -> Completion:
        """It is handled. Works while the store has no memory left for new claims. Unless it is fenced, the `mark` is
        noted in the same step (`Board.is_beside_claims`)."""
        ...

    async def release(self, claim: Claim, *, forget: bool = False) -> None:
        """It is not handled: whoever comes next may claim it. With `forget` its crashes are forgotten too. Nothing
        happens where the claim is held by another, or completed."""
        ...

    async def close(self) -> None: ...


class Heart(Protocol):
    """Where a worker shows that it is alive. Called from a thread: both methods block, within the store's time-out."""

    def beat(self, owner: bytes, seconds: float) -> bool:
        """Be alive for `seconds` from now. Whether the last beat was still there. Raises `StoreUnavailable`."""
        ...

    def stop(self, owner: bytes) -> None:
        """Be dead now: the owner's claims are free. Closes the connection too; another beat opens it again."""
        ...
