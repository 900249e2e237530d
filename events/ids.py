"""Identifiers: UUIDv7 for new events, UUIDv5 for events derived from another (RFC 9562)."""

import os
import time
from collections import deque
from collections.abc import Iterator
from hashlib import sha1

from .errors import PublishError

_VARIANT = "89ab"
_RANDOM, _PAGE = 10, 256
_LONGEST = 255  # bytes of an id: it may travel on as a property
_tails: deque[str] = deque()
os.register_at_fork(after_in_child=_tails.clear)  # a child that used the same ones would make the same ids
_DERIVED = bytes.fromhex("6ed1a2f50bb85d0c9a3f1f6a52f0c0de")  # the name space


def uuid7(now_ns: int | None = None) -> str:
    """Return a time-ordered UUIDv7 (RFC 9562, 5.7): 48 bits of Unix milliseconds, 74 random bits.

    Any thread may call it.
    """
    milliseconds = (time.time_ns() if now_ns is None else now_ns) // 1_000_000
    head = (milliseconds & 0xFFFF_FFFF_FFFF).to_bytes(6).hex()
    while True:
        try:
            return f"{head[:8]}-{head[8:]}-{_tails.pop()}"
        except IndexError:
            _tails.extend(_random_tails())


def _random_tails() -> Iterator[str]:
    """Return what follows the time in some ids: a system call for each takes longer than all else about it."""
    digits = os.urandom(_RANDOM * _PAGE).hex()
    for at in range(0, len(digits), 2 * _RANDOM):
        variant = _VARIANT[int(digits[at], 16) >> 2]  # of the bits that the version's digit replaces
        yield f"7{digits[at + 1 : at + 4]}-{variant}{digits[at + 5 : at + 8]}-{digits[at + 8 : at + 20]}"


def check_id(event_id: object) -> str:
    """Return what can be the id of an event: it travels as text of 1 to 255 bytes. Raises `PublishError`."""
    try:
        if isinstance(event_id, str) and 0 < len(event_id.encode()) <= _LONGEST:
            return event_id
    except UnicodeEncodeError:
        pass
    raise PublishError(f"event_id={event_id!r:.80} is not a text of 1 to {_LONGEST} bytes")


def derived_id(event_id: str, handler: str, position: int) -> str:
    """Return the id of the `position`-th event that `handler` publishes while it handles `event_id`.

    The same inputs give the same id, so a redelivered event publishes the same events again
    and the next service's idempotency drops them. It is that of `uuid.uuid5`, which takes three times as long.
    """
    name = f"{event_id}\x00{handler}\x00{position}".encode()
    digits = sha1(_DERIVED + name, usedforsecurity=False).hexdigest()
    variant = _VARIANT[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-5{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:32]}"
