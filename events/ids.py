"""Identifiers: UUIDv7 for new events, UUIDv5 for events derived from another (RFC 9562)."""

import os
import time
import uuid

_DERIVED = uuid.UUID("6ed1a2f5-0bb8-5d0c-9a3f-1f6a52f0c0de")


def uuid7(now_ns: int | None = None) -> str:
    """A time-ordered UUIDv7 (RFC 9562, 5.7): 48 bits of Unix milliseconds, 74 random bits."""
    milliseconds = (time.time_ns() if now_ns is None else now_ns) // 1_000_000
    random = int.from_bytes(os.urandom(10), "big")
    value = (milliseconds & 0xFFFF_FFFF_FFFF) << 80
    value |= 0x7 << 76 | (random >> 68 & 0xFFF) << 64
    value |= 0x2 << 62 | random & 0x3FFF_FFFF_FFFF_FFFF
    return str(uuid.UUID(int=value))


def derived_id(event_id: str, handler: str, position: int) -> str:
    """The id of the `position`-th event that `handler` publishes while it handles `event_id`.

    The same inputs give the same id, so a redelivered event publishes the same events again
    and the next service's idempotency drops them.
    """
    return str(uuid.uuid5(_DERIVED, f"{event_id}\x00{handler}\x00{position}"))
