"""The copies a delivery can leave behind: one that comes back later, one that rests in the dead-letter queue.

A copy keeps the body. What was read of the message, in whatever form it came, is written as Holdfast writes it, so
that the copy is read as the same event; its `message_id` is new. Of the headers that came along it takes what is the
sender's own: never RabbitMQ's bookkeeping, nothing that would route the copy elsewhere (`CC`), and only what fits.
"""

import os
import socket
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from functools import cache
from typing import Any

from ..broker import EncodedHeaders, dead_letter_queue, header_size, ladder
from ..config import VERSION
from ..events import History, Incoming, Message, metadata_headers, origin, uuid7
from ..events import headers as h
from .failure import describe_failure, summary
from .outcome import DeadLetter, Postpone

_NOTE_ROOM = 1_000  # bytes of the header that names those left out


def postponed_copy(
    incoming: Incoming,
    decision: Postpone,
    *,
    queue: str,
    now: datetime,
    budget: int,
    traced: str | None = None,
    entry: Mapping[str, Any] | None = None,
    to: str = "",
) -> Message:
    """Return the copy that comes back to `queue` after the decided delay: as the next attempt, or as the same one if
    it only waits. `traced` is this attempt in its trace; the next one is linked to it. With the headers of an
    `entry` it goes `to` the ledger or the partition of an ordered queue instead."""
    history = incoming.history
    exchange, key = origin(incoming.message)
    ours = metadata_headers(incoming.metadata) | {h.QUEUE: queue, h.EXCHANGE: exchange, h.ROUTING_KEY: key}
    if decision.error is None:
        held = {} if entry is not None else {h.HELD_MS: round(1000 * (history.held_for + decision.delay))}
        ours |= _unchanged(history) | held
    else:
        ours |= {
            h.ATTEMPT: history.attempt + 1,
            h.FIRST_FAILED_AT: (history.first_failed_at or now).isoformat(),
            h.LAST_ERROR: summary(decision.error),
        }
    if traced is not None:
        ours[h.TRACED] = traced
    if entry is not None:
        return _copy(incoming, "", to, {**ours, **entry}, budget)
    level, address, levels = ladder.address(ladder.rounded(decision.delay), ladder.to_queue(queue))
    return _copy(incoming, level, address, ours | levels, budget)


def dead_letter(
    incoming: Incoming,
    decision: DeadLetter,
    *,
    queue: str,
    handler: str,
    now: datetime,
    budget: int,
    order_key: str | None = None,
) -> Message:
    """Return the copy for the dead-letter queue of `queue`, with the final error and its history. `order_key` is the
    key that it may hold."""
    history = incoming.history
    exchange, key = origin(incoming.message)
    failure = describe_failure(decision.error, budget)
    ours = metadata_headers(incoming.metadata) | {
        h.REASON: decision.reason,
        h.ERROR_TYPE: failure.type,
        h.ERROR_MESSAGE: failure.message,
        h.TRACEBACK: failure.traceback,
        h.FINGERPRINT: failure.fingerprint,
        h.HANDLER: handler,
        h.QUEUE: queue,
        h.ATTEMPT: history.attempt,
        h.FIRST_FAILED_AT: (history.first_failed_at or now).isoformat(),
        h.FAILED_AT: now.isoformat(),
        h.WORKER: _this_process(),
        h.EXCHANGE: exchange,
        h.ROUTING_KEY: key,
    }
    if order_key:
        ours[h.ORDER_KEY] = order_key
    return _copy(incoming, "", dead_letter_queue(queue), ours, budget)


def _unchanged(history: History) -> dict[str, Any]:
    first = history.first_failed_at
    known = {h.FIRST_FAILED_AT: first and first.isoformat(), h.LAST_ERROR: history.last_error}
    return {h.ATTEMPT: history.attempt} | {name: value for name, value in known.items() if value is not None}


def _copy(incoming: Incoming, exchange: str, key: str, ours: dict[str, Any], budget: int) -> Message:
    message, metadata = incoming.message, incoming.metadata
    if not incoming.has_id:
        ours[h.GUESSED_ID] = True
    theirs = {
        name: value
        for name, value in message.headers.items()
        if name not in ours and name not in h.IDENTITY and (name in h.KEPT or h.is_senders(name))
    }
    return replace(
        message,
        exchange=exchange,
        routing_key=key,
        headers=_fit(theirs, ours, budget),
        message_id=uuid7(),
        type=metadata.event_type or None,
        correlation_id=metadata.correlation_id,
        app_id=metadata.source or None,
    )


def _fit(theirs: dict[str, Any], ours: Mapping[str, Any], budget: int) -> EncodedHeaders:
    """Return `ours` and as much of `theirs` as fits, encoded; the largest are left out first and named in a note."""
    try:
        headers = EncodedHeaders({**theirs, **ours})
        if len(headers.encoded) <= budget - _NOTE_ROOM:
            return headers
    except ValueError:
        pass  # one of theirs
    room = budget - len(EncodedHeaders(ours).encoded) - _NOTE_ROOM
    sizes: dict[str, int] = {}
    dropped: list[str] = []
    for name, value in theirs.items():
        try:
            sizes[name] = header_size(name, value)
        except ValueError:
            dropped.append(f"{name[:40]!r} (not encodable)")
    total = sum(sizes.values())
    for name in sorted(sizes, key=sizes.__getitem__, reverse=True):
        if total <= room:
            break
        total -= sizes.pop(name)
        dropped.append(f"{name[:40]!r}")
    kept = {name: theirs[name] for name in theirs if name in sizes}
    note = {h.NOTE: f"headers left out: {', '.join(dropped)}"[:900]} if dropped else {}
    return EncodedHeaders({**kept, **ours, **note})


@cache
def _this_process() -> str:
    return f"{socket.gethostname()} {os.getpid()} holdfast/{VERSION}"
