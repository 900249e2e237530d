"""Targets: streams of frames, cut anywhere."""

import asyncio
import atexit
from itertools import pairwise

import pamqp.frame
from aiormq import spec
from builders import a_tap
from drawing import Drawing
from pamqp.body import ContentBody
from pamqp.header import ContentHeader

from holdfast.broker.amqp.confirms import Confirms
from holdfast.broker.amqp.splitter import Splitter, Tap
from holdfast.events import Message

_LAST = (spec.Channel.Close, spec.Channel.CloseOk, spec.Connection.Close)


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
    feed(stream, cuts, a_tap(lambda *one: taken.append(one)), passed)
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
    others, at, tag, missing, body, is_closed = b"", 0, None, None, b"", False
    while at < len(stream):
        try:
            size, channel, frame = pamqp.frame.unmarshal(stream[at:])
        except Exception:  # noqa: BLE001 (pamqp raises whatever comes up)
            return None
        if size <= 0 or size > 131_080 or at + size > len(stream) or stream[at + size - 1] != 0xCE:
            return None
        is_closed = is_closed or (channel == 1 and isinstance(frame, _LAST))
        is_content = isinstance(frame, ContentHeader | ContentBody)
        if channel == 1 and isinstance(frame, spec.Basic.Deliver):
            if is_closed or not is_lawful(frame, stream[at : at + size]):
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
