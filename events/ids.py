"""Identifiers: UUIDv7 for new events, UUIDv5 for events derived from another (RFC 9562)."""

import os
import time
import uuid

_VARIANT = "89ab"
_DERIVED = uuid.UUID("6ed1a2f5-0bb8-5d0c-9a3f-1f6a52f0c0de")


def uuid7(now_ns: int | None = None) -> str:
    """A time-ordered UUIDv7 (RFC 9562, 5.7): 48 bits of Unix milliseconds, 74 random bits."""
    milliseconds = (time.time_ns() if now_ns is None else now_ns) // 1_000_000
    moment, random = f"{milliseconds & 0xFFFF_FFFF_FFFF:012x}", os.urandom(10)
    digits = random.hex()
    variant = _VARIANT[random[0] & 3]
    return f"{moment[:8]}-{moment[8:]}-7{digits[2:5]}-{variant}{digits[5:8]}-{digits[8:]}"


def derived_id(event_id: str, handler: str, position: int) -> str:
    """The id of the `position`-th event that `handler` publishes while it handles `event_id`.

    The same inputs give the same id, so a redelivered event publishes the same events again
    and the next service's idempotency drops them.
    """
    return str(uuid.uuid5(_DERIVED, f"{event_id}\x00{handler}\x00{position}"))
