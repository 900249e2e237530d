"""Idempotency (floor 3): claims on events, kept in Redis or in memory."""

from .keys import claim_key, fingerprint_of
from .lease import Lease
from .memory import MemoryClaims
from .open import OpenClaims, no_claims, open_claims, open_heart
from .outage import Completed, WorkerClaims
from .port import (
    Acquired,
    Answer,
    Busy,
    Claim,
    ClaimStore,
    Completion,
    Done,
    Endangered,
    Heart,
    Mismatch,
    StoreUnavailable,
    Suspect,
)

__all__ = [
    "Acquired",
    "Answer",
    "Busy",
    "Claim",
    "ClaimStore",
    "Completed",
    "Completion",
    "Done",
    "Endangered",
    "Heart",
    "Lease",
    "MemoryClaims",
    "Mismatch",
    "OpenClaims",
    "StoreUnavailable",
    "Suspect",
    "WorkerClaims",
    "claim_key",
    "fingerprint_of",
    "no_claims",
    "open_claims",
    "open_heart",
]
