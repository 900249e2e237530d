"""Inputs to begin with: real bodies, headers and frames, and what is known to be hostile."""

import json
import struct
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pamqp.frame
from aiormq import spec
from pamqp.body import ContentBody
from pamqp.header import ContentHeader

from holdfast.events import Receipt, receipt_message

NOON = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)
THING = {"name": "a", "count": 3, "ratio": 1.5, "price": "9.50", "at": "2026-01-02T12:00:00Z", "lines": [1, 2]}
STRUCTURED = {
    "specversion": "1.0",
    "id": "e-1",
    "source": "/shop",
    "type": "fuzz.thing",
    "time": "2026-01-02T12:00:00Z",
}
DEATH = {"reason": "expired", "queue": "q", "time": NOON, "count": 3, "exchange": "x", "routing-keys": ["job.run"]}


def header(**properties: Any) -> bytes:
    """The payload of a content header frame."""
    return bytes(ContentHeader(0, 2, spec.Basic.Properties(**properties)).marshal())


def frame(thing: Any, channel: int = 1) -> bytes:
    return bytes(pamqp.frame.marshal(thing, channel))


def delivery(tag: int, body: bytes, *, piece: int = 131_064, **properties: Any) -> bytes:
    pieces = [ContentBody(body[at : at + piece]) for at in range(0, len(body), piece)]
    head = ContentHeader(0, len(body), spec.Basic.Properties(**properties))
    return b"".join(map(frame, (spec.Basic.Deliver("c", tag, False, "events", "a.key"), head, *pieces)))


def returned(message_id: str) -> bytes:
    head = ContentHeader(0, 0, spec.Basic.Properties(message_id=message_id))
    return frame(spec.Basic.Return(312, "NO_ROUTE", "events", "a.key")) + frame(head)


def raw_header(flags: int, payload: bytes) -> bytes:
    return struct.pack(">HHQH", 60, 0, 2, flags) + payload


def flood(entry: bytes, size: int = 100_000) -> bytes:
    """A table of one entry again and again."""
    table = entry * (size // len(entry))
    return raw_header(0x2000, struct.pack(">I", len(table)) + table)


def deep(kind: bytes, name: bytes) -> bytes:
    """Tables in tables, or arrays in arrays, as deep as a frame allows."""
    inner = b""
    while len(inner) < 100_000:
        inner = name + kind + struct.pack(">I", len(inner)) + inner
    table = inner if name else b"\x00" + inner
    return raw_header(0x2000, struct.pack(">I", len(table)) + table)


HEADERS = [
    header(message_id="m-1", message_type="fuzz.thing", content_type="application/json", timestamp=NOON, app_id="shop"),
    header(headers={"event-id": "e-1", "event-version": 3, "event-time": NOON.isoformat(), "event-key": "k"}),
    header(headers={"holdfast-attempt": 4, "holdfast-first-failed-at": NOON.isoformat(), "holdfast-last-error": "x"}),
    header(headers={"holdfast-attempt": 2**40, "event-id": "", "event-time": "9" * 300, "event-version": -1}),
    header(headers={"event-id": "e", "event-time": "20260101T000000.000001+235959.999999"}),
    header(headers={"x-death": [DEATH, DEATH], "x-first-death-queue": "q", "x-delivery-count": 5}),
    header(headers={"x-death": [{**DEATH, "routing-keys": "all", "time": "soon", "queue": 7}, "x", None]}),
    header(headers={"holdfast-reason": "exhausted", "holdfast-error-type": "E", "holdfast-traceback": "Traceback"}),
    header(headers={"CC": ["q"], "BCC": ["q"], "a": Decimal("1.5"), "b": bytearray(b"\xff"), "c": {"$time": True}}),
    header(headers={"cloudEvents:specversion": "1.0", "cloudEvents:id": "1", "cloudEvents:source": "/", "n": 1.5}),
    header(
        headers={"holdfast-replay": "replay-1/abc", "holdfast-replay-forced": "replay-1", "traceparent": "00-a-b-01"}
    ),
    raw_header(0x0040, struct.pack(">Q", 2**33)),
    raw_header(0x0020, b"\xff" * 256),
    raw_header(0x0780, b"\x80" + b"\xff" * 128 + b"\xff" + b"\xfe" * 255 + b"\x05" + b"x" * 5 + b"\x01m"),
    raw_header(0xFFFF, b"\x00" * 200),
    *(
        flood(entry)
        for entry in (b"\x00V", b"\x01ad" + b"\x7f" * 8, b"\x01aF\0\0\0\0", b"\x01aA\0\0\0\0", b"\x01aS\0\0\0\0")
    ),
    raw_header(0x2000, struct.pack(">I", 100_006) + b"\x00A" + struct.pack(">I", 100_000) + b"V" * 100_000),
    deep(b"F", b"\x01a"),
    deep(b"A", b""),
]
BODY = frame(ContentBody(b"[]"))
FRAMES = [
    delivery(1, b"{}", message_id="m-1") + delivery(2, b"x" * 40, piece=16, headers={"a": 1}),
    delivery(1, b"") + frame(spec.Basic.CancelOk("c")) + frame(spec.Basic.Ack(7, True), 2) + delivery(2, b"y"),
    frame(spec.Basic.Deliver("c", 1, True, "e", "k"))
    + frame(spec.Channel.Close(406, "NO", 60, 80))
    + delivery(3, b"z"),
    delivery(1, b"x" * 20)[:-28] + delivery(2, b"{}") + frame(spec.Basic.Deliver("c", 3, False, "e", "k")) + BODY,
    b"\x01\x00\x01\x00\x00\x00\x04\x00\x3c\x00\x3c\xce" + delivery(1, b"{}"),
    b"\x01\x00\x01\xff\xff\xff\xff" + b"x" * 20,
]
CONFIRMS = [
    frame(spec.Basic.Ack(1, False)) + frame(spec.Basic.Nack(2, False, False)) + frame(spec.Basic.Ack(4, True)),
    returned("m-1") + frame(spec.Basic.Ack(2, True)) + frame(spec.Basic.Ack(0, True)),
    returned("m-9") + returned("m-0") + returned("m-0") + frame(spec.Basic.Nack(0, True, False)),
    b"\x01\x00\x01\x00\x00\x00\x04\x00\x3c\x00\x50\xce" + frame(spec.Basic.Ack(1, False)),
]
BODIES = [
    json.dumps(THING).encode(),
    json.dumps({**THING, "parts": {"p": THING}, "whatever": [THING, None, True]}).encode(),
    json.dumps({**STRUCTURED, "data": THING}).encode(),
    json.dumps({**STRUCTURED, "data_base64": "e30="}).encode(),
    b'{"name": ""}',
    b'{"name": "a", "name": "b", "whatever": 1e999}',
    b'{"name": "a", "whatever": NaN}',
    b'{"name": "a", "whatever": [-Infinity]}',
    b'{"name": "\\ud800"}',
    b'{"name": "NaN", "count": ' + b"9" * 5_000 + b"}",
    b"[" * 100_000,
    b'{"parts":' * 10_000,
    b"\xff\xfe{}",
]
SETTINGS = [
    b"amqp://guest", b"amqp://h:5672/", b"redis+sentinel://h:1,h:2/m", b"nan", b"1e400", b'{"url": "memory://"}',
    b"[" * 60, b"x" * 63, b"pyproject.toml", b"\xff", b"../../", b"true",
]  # fmt: skip

SEEDS: dict[str, list[bytes]] = {
    "bodies": [bytes((kind, 0, version)) + body for body in BODIES for kind in (1, 3) for version in (0, 2)],
    "cloudevents": [
        *(b"\x01" + json.dumps({**STRUCTURED, **more}).encode() for more in ({}, {"id": 7}, {"id": "\xe9" * 200})),
        b"\x00\x00\x01\x04\x03e-1\x02\x04\x02/s\x03\x04\x0afuzz.thing",
        b"\x00\x03\x08\x04\x3f" + "\N{SNOWMAN}".encode() * 21,
        *(b"\x01" + body for body in BODIES[2:4]),
    ],
    "receipts": [
        receipt_message(Receipt("replay-1", "abc", "dead_lettered", 2, "E: x", "f")).body,
        b'{"replay": "\\ud800", "letter": "", "outcome": "handled", "attempt": 1, "error": "", "fingerprint": ""}',
        b"[" * 9_000,
    ],
    "headers": HEADERS,
    "letters": HEADERS,
    "forged": [bytes((n * step + step) % 256 for n in range(60)) for step in range(1, 40)],
    "frames": [cuts + stream for stream in FRAMES for cuts in (b"\x00", b"\x03\0\0\0\x05\0\0\0\x11\0\0\0\x30")],
    "confirms": [cuts + stream for stream in CONFIRMS for cuts in (b"\x00", b"\x02\0\0\0\x05\0\0\0\x11")],
    "settings": [
        b"\x02" + bytes((n * 3, len(v))) + v + bytes((n, len(v))) + v + v for n in range(24) for v in SETTINGS
    ],
}
