"""The splitter takes deliveries of tapped channels out of a stream of frames, wherever the stream is cut."""

from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pamqp.frame
import pytest
from aiormq import spec
from builders import a_tap
from hypothesis import example, given
from hypothesis import strategies as st
from pamqp.body import ContentBody
from pamqp.header import ContentHeader
from pamqp.heartbeat import Heartbeat

from holdfast.broker.amqp.deliveries import Acks
from holdfast.broker.amqp.splitter import Splitter
from holdfast.events import Message

Taken = tuple[Message, int, bool]


def marshalled(frame: Any, channel: int) -> bytes:
    return bytes(pamqp.frame.marshal(frame, channel))


def a_delivery(channel: int, tag: int, body: bytes, *, piece: int = 131_064, **properties: Any) -> bytes:
    """The frames of one delivery, its body in pieces."""
    method = spec.Basic.Deliver("consumer", tag, tag % 2 == 0, "events", "order.created")
    header = ContentHeader(0, len(body), spec.Basic.Properties(**properties))
    bodies = [ContentBody(body[at : at + piece]) for at in range(0, len(body), piece)]
    return b"".join(marshalled(frame, channel) for frame in (method, header, *bodies))


class Stream:
    """A splitter with channel 1 tapped, and what it took and passed on."""

    def __init__(self) -> None:
        self.passed = b""
        self.taken: list[Taken] = []
        self.splitter = Splitter(self._pass_on)
        self.splitter.tap(1, a_tap(lambda *taken: self.taken.append(taken)))

    def _pass_on(self, data: bytes) -> None:
        self.passed += data

    def feed(self, data: bytes, *cuts: int) -> None:
        edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
        for start, end in pairwise(edges):
            self.splitter.feed(data[start:end])


OTHERS = [
    marshalled(Heartbeat(), 0),
    marshalled(spec.Basic.CancelOk("consumer"), 1),
    marshalled(spec.Basic.Ack(7, True), 2),
    marshalled(spec.Basic.Return(312, "NO_ROUTE", "events", "nobody"), 1),
    a_delivery(2, 9, b"of another channel"),
    marshalled(spec.Channel.Close(406, "PRECONDITION_FAILED", 60, 80), 2),
]


@given(
    st.lists(st.one_of(st.sampled_from(OTHERS), st.binary(max_size=300)), max_size=8),
    st.lists(st.integers(0, 10_000), max_size=12),
    st.integers(1, 64),
)
def test_deliveries_are_taken_and_everything_else_passes_whole_and_in_order(
    things: list[bytes], cuts: list[int], piece: int
) -> None:
    stream, sent, bodies, others = Stream(), b"", [], b""
    for thing in things:
        if thing in OTHERS:
            sent, others = sent + thing, others + thing
        else:
            bodies.append(thing)
            sent += a_delivery(1, len(bodies), thing, piece=piece)

    stream.feed(sent, *cuts)

    assert [message.body for message, _, _ in stream.taken] == bodies
    assert [(tag, again) for _, tag, again in stream.taken] == [(n, n % 2 == 0) for n in range(1, len(bodies) + 1)]
    assert stream.passed == others


def test_a_delivery_cut_at_every_byte_is_the_same() -> None:
    data = OTHERS[0] + a_delivery(1, 1, b"x" * 50, piece=20, message_id="m-1") + OTHERS[1]

    for cut in range(len(data)):
        stream = Stream()
        stream.feed(data, cut)
        assert [message.message_id for message, _, _ in stream.taken] == ["m-1"]
        assert stream.passed == OTHERS[0] + OTHERS[1]


TEXTS = st.text(max_size=40).filter(lambda text: len(text.encode("utf-8", "replace")) < 120)
VALUES: Any = st.recursive(
    st.one_of(TEXTS, st.booleans(), st.integers(-(2**31), 2**62), st.none(), st.just(datetime(2026, 1, 2, tzinfo=UTC))),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=6,
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            **{
                name: TEXTS.filter(bool)
                for name in ("content_type", "content_encoding", "correlation_id", "reply_to", "message_id")
            },
            "app_id": TEXTS.filter(bool),
            "message_type": TEXTS.filter(bool),
            "expiration": st.just("5000"),
            "user_id": st.just("guest"),
            "delivery_mode": st.just(2),
            "priority": st.integers(0, 255),
            "timestamp": st.just(datetime(2026, 5, 6, 7, 8, 9, tzinfo=UTC)),
            "headers": st.dictionaries(TEXTS.filter(bool), VALUES, min_size=1, max_size=5),
        },
    )
)
@example({"headers": {"nothing": None}})
def test_properties_are_what_pamqp_reads(properties: dict[str, Any]) -> None:
    stream = Stream()
    data = a_delivery(1, 1, b"", **properties)

    stream.feed(data)

    [(message, _, _)] = stream.taken
    _, _, header = pamqp.frame.unmarshal(data[pamqp.frame.unmarshal(data)[0] :])
    read = header.properties
    assert message.headers == (read.headers or {})
    assert (message.type, message.message_id, message.app_id) == (read.message_type, read.message_id, read.app_id)
    assert (message.content_type, message.content_encoding) == (read.content_type, read.content_encoding)
    assert (message.correlation_id, message.reply_to) == (read.correlation_id, read.reply_to)
    assert (message.timestamp, message.priority) == (read.timestamp, read.priority)


@given(st.lists(st.binary(max_size=400), max_size=6))
def test_bytes_that_are_no_frames_pass_untouched_and_raise_nothing(pieces: list[bytes]) -> None:
    stream = Stream()

    for piece in pieces:
        stream.splitter.feed(piece)
    stream.splitter.end()

    assert b"".join(pieces).endswith(stream.passed)


@given(st.binary(min_size=1, max_size=120), st.integers(0, 119), st.integers(0, 255))
def test_a_delivery_with_a_byte_changed_raises_nothing(body: bytes, at: int, byte: int) -> None:
    stream = Stream()
    data = bytearray(a_delivery(1, 1, body, headers={"a": "b", "n": 1}, message_id="m-1"))
    data[at % len(data)] = byte

    stream.splitter.feed(bytes(data))
    stream.splitter.end()

    assert len(stream.taken) <= 1


def test_a_length_beyond_any_frame_is_left_to_aiormq() -> None:
    stream, data = Stream(), b"\x01\x00\x01\xff\xff\xff\xff" + b"x" * 100

    stream.feed(data, 3, 9)
    stream.feed(b"more")

    assert stream.passed == data + b"more"


@pytest.mark.parametrize("channel", [1, 2])
def test_a_reply_text_that_was_cut_within_a_character_is_made_legible(channel: int) -> None:
    stream, text = Stream(), "NOT_FOUND - no queue '" + "é" * 115
    close = marshalled(spec.Channel.Close(404, text, 50, 10), channel)
    cut = close.replace(text.encode(), text.encode()[:-1] + b".")

    stream.feed(cut + OTHERS[0], 20)

    _, _, read = pamqp.frame.unmarshal(stream.passed)
    assert (read.reply_code, read.method_id) == (404, 10)
    assert read.reply_text == "NOT_FOUND - no queue '" + "?" * 229 + "."
    assert stream.passed.endswith(OTHERS[0])


def test_a_frame_whose_end_is_not_marked_is_passed_on_with_all_that_follows() -> None:
    method, rest = a_delivery(1, 1, b"one"), a_delivery(1, 2, b"two")
    size = 8 + int.from_bytes(method[3:7])
    broken = method[: size - 1] + b"\x00" + method[size:] + rest
    stream = Stream()

    stream.feed(broken)

    assert (stream.taken, stream.passed) == ([], broken)


@pytest.mark.parametrize("last", [spec.Channel.Close(404, "NOT_FOUND", 60, 20), spec.Channel.CloseOk()])
def test_a_channel_is_tapped_up_to_its_last_frame(last: Any) -> None:
    stream, end = Stream(), marshalled(last, 1) + a_delivery(1, 1, b"of the next channel with this number")

    stream.feed(a_delivery(1, 1, b"late") + end)

    assert [message.body for message, _, _ in stream.taken] == [b"late"]
    assert stream.passed == end


def test_what_comes_for_closed_deliveries_is_taken_and_handed_to_nobody() -> None:
    taken, passed = list[Taken](), list[bytes]()
    splitter, tap = Splitter(passed.append), a_tap(lambda *one: taken.append(one))
    splitter.tap(1, tap)

    tap.close()
    splitter.feed(a_delivery(1, 1, b"late"))

    assert (taken, passed) == ([], [])


@given(st.lists(st.tuples(st.sampled_from(["ack", "return", "flush"]), st.integers(1, 30)), max_size=80))
def test_acks_name_only_what_is_done_and_leave_nothing_out(steps: list[tuple[str, int]]) -> None:
    acks, unsettled, done = Acks(), set(range(1, 31)), set[int]()

    def flush() -> None:
        for tag, multiple in acks.take():
            covered = {other for other in unsettled if other == tag or (multiple and other < tag)}
            assert tag in unsettled, "named a tag that was settled"
            assert covered <= done, "covered a tag that is not done"
            unsettled.difference_update(covered)

    for step, tag in steps:
        if step == "flush":
            flush()
        elif tag in unsettled and tag not in done:
            if step == "ack":
                done.add(tag)
                assert acks.ack(tag)
            else:
                unsettled.discard(tag)
                assert acks.returned(tag)
    flush()

    assert not done & unsettled


@pytest.mark.parametrize(
    ("finished", "frames"),
    [
        ([1, 2, 3], [(3, True)]),
        ([1], [(1, False)]),
        ([2, 3], [(2, False), (3, False)]),
        ([1, 2, 4], [(2, True), (4, False)]),
    ],
)
def test_the_finished_prefix_is_one_frame_and_islands_are_one_each(
    finished: list[int], frames: list[tuple[int, bool]]
) -> None:
    acks = Acks()

    for tag in finished:
        acks.ack(tag)

    assert acks.take() == frames
    assert acks.take() == []


@given(st.permutations(range(2, 40)), st.sets(st.integers(2, 39)))
def test_tags_settled_behind_an_unfinished_one_are_kept_as_one_run_for_each_gap(
    order: list[int], unfinished: set[int]
) -> None:
    acks = Acks()

    for tag in order:
        if tag not in unfinished:
            assert acks.ack(tag) if tag % 3 else acks.returned(tag)
            acks.take()

    settled = set(range(2, 40)) - unfinished
    assert [tag for tag in range(1, 45) if acks.is_finished(tag)] == sorted(settled)
    assert len(acks._firsts) == len(acks._lasts) == sum(tag - 1 not in settled for tag in settled)
