"""Targets: content headers, and what copies and dead-letter tools make of them."""

import json
from datetime import UTC, datetime
from typing import Any

from drawing import Drawing
from pamqp.header import ContentHeader

from holdfast.broker.codec import HEADER_BUDGET, pack, unpack
from holdfast.consumer.copies import dead_letter, postponed_copy
from holdfast.consumer.in_flight import identity_of
from holdfast.consumer.outcome import DeadLetter, Postpone
from holdfast.dead_letters.archive import from_line, to_line
from holdfast.dead_letters.letter import key_of, read_letter
from holdfast.dead_letters.replay import replayed
from holdfast.events import Message, PublishError, forced_by, read_history, read_incoming, read_metadata, replay_of
from holdfast.events import headers as h

NOW = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)
ERROR = ValueError("a failure")
NAMES = (
    *(name for constant, name in vars(h).items() if constant.isupper() and isinstance(name, str)),
    *("x-death", "x-first-death-queue", "x-delivery-count", "CC", "mine", "cloudEvents:specversion", "cloudEvents:id"),
    *("cloudEvents:source", "cloudEvents:type", "cloudEvents:time", "cloudEvents:correlationid"),
)
SHORT = (None, "", "a.key", "\N{SNOWMAN}" * 85, "x" * 255, "\x1b[31m", "replay-1/abc")
PLAUSIBLE = (
    *(None, 1, -1, 999_999, 1_000_000, 2**62, float("nan"), bytearray(b"\xff"), ["a"], {"$time": "x"}, NOW),
    *(NOW.isoformat(), "20260101T000000.000001+235959.999999", "0001-01-01T00:00:00+23:59", "7", "1.0"),
    *("replay-1/abc", "x" * 50_000, "\N{SNOWMAN}" * 20_000),
)


def headers(data: bytes) -> None:
    """Any content header makes a message. Its copies, postponed or dead, can be written within the header budget,
    and are the same event: all its metadata, and its attempts, one more where it runs again."""
    message = unpack(b"events", b"fuzz.thing", data, b"{}")
    incoming = read_incoming(message, NOW)
    metadata, history = incoming.metadata, incoming.history
    hash(identity_of(message))
    replay_of(message.headers), forced_by(message.headers)

    budget: Any = {"queue": "q", "now": NOW, "budget": HEADER_BUDGET}
    again = postponed_copy(incoming, Postpone(1.0, ERROR), **budget)
    waiting = postponed_copy(incoming, Postpone(1.0, None), **budget)
    dead = dead_letter(incoming, DeadLetter("exhausted", ERROR), handler="h", **budget)

    for copy, attempt in ((again, history.attempt + 1), (waiting, history.attempt), (dead, history.attempt)):
        packed = pack(copy)
        assert packed.headers <= HEADER_BUDGET
        carried = unpack(b"", b"q", packed.header, packed.body)
        found = read_incoming(carried, NOW)
        assert (found.metadata, found.has_id) == (metadata, incoming.has_id)
        assert read_history(carried).attempt == min(attempt, 1_000_000) or attempt > 1_000_000
        assert not any(name.startswith(h.BROKERS_OWN) for name in carried.headers)
    if (table := canonical_table(data)) is not None:
        assert message.headers == table


def canonical_table(data: bytes) -> dict[str, Any] | None:
    """The headers as pamqp reads them, where it would write them just so; None where it has a view of its own."""
    try:
        header = ContentHeader()
        header.unmarshal(data)
        found: dict[str, Any] = header.properties.headers or {}
        return found if header.marshal() == data and repr(found).count("nan") == 0 else None
    except Exception:  # noqa: BLE001 (pamqp raises whatever comes up)
        return None


def letters(data: bytes) -> None:
    """A message in a dead-letter queue, whoever wrote it and with whatever `x-death`, is a letter with bounded texts;
    it survives the archive with its key; a replay of it is the same event, and no longer bears the broker's words."""
    message = unpack(b"events", b"fuzz.thing", data, data[-20:])

    letter = read_letter(message, key=key_of(message), position=0)
    kept, _ = from_line(to_line(message))
    again = replayed(letter, operation="fuzz-1", target="q", forced=False)

    assert key_of(kept) == letter.key
    texts = (letter.reason, letter.handler, letter.target, letter.error_type, letter.error_message, letter.worker)
    assert all(len(text) <= 4_100 for text in texts) and all(isinstance(text, str) for text in letter.chain)
    json.dumps([texts, letter.event_type, letter.replayed]).encode()
    assert read_metadata(again, NOW).event_id == letter.event_id
    assert read_history(again).attempt == 1
    assert not any(name.startswith(h.BROKERS_OWN) for name in again.headers)


def forged(data: bytes) -> None:
    """What `headers` and `letters` promise, where headers have names that mean something, and values that may."""
    draw, carried = Drawing(data), dict[str, Any]()
    while not draw.is_empty and len(carried) < 12:
        name = draw.one_of(NAMES)
        carried[name] = draw.value() if draw.number(2) else draw.one_of(PLAUSIBLE)
        if name == "x-death" and draw.number(2):
            death = {key: draw.value(1) for key in ("reason", "queue", "time", "exchange", "routing-keys")}
            carried[name] = [death | {"routing-keys": draw.one_of(([], ["a.key"], [carried[name]], 1))}, carried[name]]
    texts = {name: draw.one_of(SHORT) for name in ("type", "message_id", "correlation_id", "app_id")}

    try:
        header = pack(Message(b"{}", headers=carried, **texts)).header
    except PublishError:  # what cannot be sent cannot come
        return
    headers(header)
    letters(header)
