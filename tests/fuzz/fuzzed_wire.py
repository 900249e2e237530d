"""Targets: content headers, what copies and dead-letter tools make of them, and streams of frames."""

import asyncio
import atexit
import json
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pamqp.frame
from aiormq import spec
from drawing import Drawing
from pamqp.body import ContentBody
from pamqp.header import ContentHeader

from holdfast.broker.amqp.confirms import Confirms
from holdfast.broker.amqp.content import message_of
from holdfast.broker.amqp.deliveries import Deliveries
from holdfast.broker.amqp.packing import pack
from holdfast.broker.amqp.splitter import Splitter, Tap
from holdfast.broker.size import HEADER_BUDGET
from holdfast.consumer.copies import dead_letter, postponed_copy
from holdfast.consumer.outcome import DeadLetter, Postpone
from holdfast.consumer.remembered import identity_of
from holdfast.dead_letters.archive import from_line, to_line
from holdfast.dead_letters.letter import key_of, read_letter
from holdfast.dead_letters.remake import replayed
from holdfast.events import Message, forced_by, read_history, read_metadata, replay_of
from holdfast.events import headers as h

NOW = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)
ERROR = ValueError("a failure")


def headers(data: bytes) -> None:
    """Any content header makes a message. Its copies, postponed or dead, can be written within the header budget,
    and are the same event: its id, type and time, and its attempts, one more where it runs again."""
    message = message_of(b"events", b"fuzz.thing", data, b"{}")
    metadata, history = read_metadata(message, NOW), read_history(message)
    hash(identity_of(message))
    replay_of(message.headers), forced_by(message.headers)

    told: Any = (message, metadata, history)
    budget: Any = {"queue": "q", "now": NOW, "budget": HEADER_BUDGET}
    again = postponed_copy(*told, Postpone(1.0, ERROR), **budget)
    waiting = postponed_copy(*told, Postpone(1.0, None), **budget)
    dead = dead_letter(*told, DeadLetter("exhausted", ERROR), handler="h", **budget)

    for copy, attempt in ((again, history.attempt + 1), (waiting, history.attempt), (dead, history.attempt)):
        packed = pack(copy)
        assert packed.headers <= HEADER_BUDGET
        carried = message_of(b"", b"q", packed.header, packed.body)
        found = read_metadata(carried, NOW)
        assert (found.event_id, found.time) == (metadata.event_id, metadata.time)
        assert read_history(carried).attempt == min(attempt, 1_000_000) or attempt > 1_000_000
        assert not any(name.startswith(h.BROKERS_OWN) for name in carried.headers)
        if h.NOTE not in carried.headers:
            assert found == metadata
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
    message = message_of(b"events", b"fuzz.thing", data, data[-20:])

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


def frames(data: bytes) -> None:
    """A stream of frames is split alike wherever it is cut, every byte of it is taken or passed on, and deliveries
    are those that pamqp reads."""
    draw = Drawing(data)
    cuts = sorted({draw.number(4096) for _ in range(draw.number(6))})
    stream = draw.rest()

    taken, passed = split(stream, [])
    for others in (cuts, list(range(len(stream)))[:512]):
        assert repr(split(stream, others)) == repr((taken, passed))  # as text, for NaN is not itself
    expected = deliveries_of(stream)
    if expected is not None:
        assert [(message.body, tag) for message, tag, _ in taken] == expected[0]
        assert passed == expected[1]


def split(stream: bytes, cuts: list[int]) -> tuple[list[tuple[Message, int, bool]], bytes]:
    taken: list[tuple[Message, int, bool]] = []
    passed: list[bytes] = []
    feed(stream, cuts, Deliveries(lambda *one: taken.append(one)), passed)
    return taken, b"".join(passed)


def feed(stream: bytes, cuts: list[int], tap: Tap, passed: list[bytes]) -> None:
    splitter = Splitter(passed.append)
    splitter.tap(1, tap)
    edges = [0, *(cut for cut in cuts if cut < len(stream)), len(stream)]
    for start, end in pairwise(edges):
        splitter.feed(stream[start:end])
    splitter.end()


def deliveries_of(stream: bytes) -> tuple[list[tuple[bytes, int]], bytes] | None:
    """Body and tag of each delivery on channel 1, and all other frames, by pamqp; None for an unlawful stream."""
    found: list[tuple[bytes, int]] = []
    others, at, tag, missing, body = b"", 0, None, None, b""
    while at < len(stream):
        try:
            size, channel, frame = pamqp.frame.unmarshal(stream[at:])
        except Exception:  # noqa: BLE001 (pamqp raises whatever comes up)
            return None
        if size <= 0 or size > 131_080 or stream[at + size - 1] != 0xCE:
            return None
        is_content = isinstance(frame, ContentHeader | ContentBody)
        if channel == 1 and isinstance(frame, spec.Basic.Deliver):
            if not is_lawful(frame, stream[at : at + size]):
                return None
            tag, missing, body = frame.delivery_tag, None, b""
        elif channel != 1 or (not is_content and stream[at] != 8):
            others += stream[at : at + size]
            tag = tag if channel != 1 else None
        elif isinstance(frame, ContentHeader) and tag is not None and missing is None:
            missing = frame.body_size
        elif isinstance(frame, ContentBody) and missing and len(frame.value) <= missing:
            body += frame.value
            missing -= len(frame.value)
        else:
            return None
        if tag is not None and missing == 0:
            found.append((body, tag))
            tag, missing = None, None
        at += size
    return found, others


def is_lawful(deliver: spec.Basic.Deliver, data: bytes) -> bool:
    """Whether pamqp, which reads texts that end early and tags below 0, would write it so."""
    try:
        return pamqp.frame.marshal(deliver, 1) == data and deliver.delivery_tag >= 0
    except ValueError:  # and exchanges of names that none can have
        return False


LOOP = asyncio.new_event_loop()
atexit.register(LOOP.close)


def confirms(data: bytes) -> None:
    """What the broker says of publishes means the same wherever the stream is cut; a publish has one verdict."""
    draw = Drawing(data)
    cuts = sorted({draw.number(4096) for _ in range(draw.number(6))})
    stream = draw.rest()

    whole = LOOP.run_until_complete(verdicts(stream, []))

    assert LOOP.run_until_complete(verdicts(stream, cuts)) == whole
    assert LOOP.run_until_complete(verdicts(stream, list(range(len(stream)))[:512])) == whole


async def verdicts(stream: bytes, cuts: list[int]) -> tuple[list[str | None], bytes]:
    tap, passed = Confirms(), list[bytes]()
    waiting = [tap.expect(Message(b"", "events", "a.key", message_id=f"m-{n}")) for n in range(4)]
    feed(stream, cuts, tap, passed)
    return [one.result() if one.done() else None for one in waiting], b"".join(passed)
