"""Idempotency (floor 3): claims on events, kept in Redis or in memory."""

from .keys import claim_key, fingerprint_of
from .lease import NO_LEASE, Lease, NoLease
from .memory import MemoryClaims
from .open import OpenClaims, open_claims, open_heart
from .outage import Completed, NoClaims, StoreClaims, WorkerClaims
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
    "NO_LEASE",
    "NoClaims",
    "NoLease",
    "Mismatch",
    "OpenClaims",
    "StoreClaims",
    "StoreUnavailable",
    "Suspect",
    "WorkerClaims",
    "claim_key",
    "fingerprint_of",
    "open_claims",
    "open_heart",
]
