"""Identifiers: UUIDv7 for new events, UUIDv5 for events derived from another (RFC 9562)."""

import os
import time
import uuid
from collections import deque

from .errors import PublishError

_VARIANT = "89ab"
_RANDOM, _PAGE = 10, 256
_LONGEST = 255  # bytes of an id: it may travel on as a property
_pool: deque[bytes] = deque()
os.register_at_fork(after_in_child=_pool.clear)  # a child that used the same bytes would make the same ids
_DERIVED = uuid.UUID("6ed1a2f5-0bb8-5d0c-9a3f-1f6a52f0c0de")


def uuid7(now_ns: int | None = None) -> str:
    """Return a time-ordered UUIDv7 (RFC 9562, 5.7): 48 bits of Unix milliseconds, 74 random bits."""
    milliseconds = (time.time_ns() if now_ns is None else now_ns) // 1_000_000
    random = _pool.pop() if _pool else random_bytes()
    digits = ((milliseconds & 0xFFFF_FFFF_FFFF).to_bytes(6) + random).hex()
    variant = _VARIANT[random[0] >> 6]  # of the bits that the version's digit replaces
    return f"{digits[:8]}-{digits[8:12]}-7{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


def random_bytes() -> bytes:
    """Return ten of the operating system's random bytes, from any thread.

    They are fetched many at a time: a system call for each id takes longer than all else about it.
    """
    while True:
        try:
            return _pool.pop()
        except IndexError:
            page = os.urandom(_RANDOM * _PAGE)
            _pool.extend(page[at : at + _RANDOM] for at in range(0, len(page), _RANDOM))


def check_id(event_id: object) -> None:
    """Raise `PublishError` for what cannot be the id of an event: it travels as text of 1 to 255 bytes."""
    try:
        is_one = isinstance(event_id, str) and 0 < len(event_id.encode()) <= _LONGEST
    except UnicodeEncodeError:
        is_one = False
    if not is_one:
        raise PublishError(f"event_id={event_id!r:.80} is not a text of 1 to {_LONGEST} bytes")


def derived_id(event_id: str, handler: str, position: int) -> str:
    """Return the id of the `position`-th event that `handler` publishes while it handles `event_id`.

    The same inputs give the same id, so a redelivered event publishes the same events again
    and the next service's idempotency drops them.
    """
    return str(uuid.uuid5(_DERIVED, f"{event_id}\x00{handler}\x00{position}"))
