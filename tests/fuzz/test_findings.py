"""What fuzzing found, each as a case with a name. What it takes a broker to show is in test_hostile.py."""

import struct
from typing import Any

import pytest
from builders import NOON, OrderCreated, a_history, a_message, a_tap, an_incoming
from pamqp.body import ContentBody
from seeds import DEATH, delivery, flood, frame, raw_header

from holdfast import ConfigurationError, Event, load_settings
from holdfast.broker.amqp.confirms import Confirms
from holdfast.broker.amqp.splitter import Splitter
from holdfast.broker.codec import pack, unpack
from holdfast.consumer.copies import dead_letter
from holdfast.consumer.outcome import DeadLetter
from holdfast.dead_letters.letter import origin_of
from holdfast.events import Message, Unreadable, decode, decoder_for, read_metadata, read_receipt, seal, to_message


def a_letter(message: Message) -> Message:
    decision = DeadLetter("exhausted", ValueError("x"))
    return dead_letter(an_incoming(message, a_history()), decision, queue="q", handler="h", now=NOON, budget=126_976)


@pytest.mark.parametrize(
    "header",
    [
        raw_header(0x0040, struct.pack(">Q", 2**33 * 1000)),  # a time in 2242, in milliseconds
        raw_header(0x0040, struct.pack(">Q", 2**33)),
        raw_header(0x0020, b"\xff" + b"\xff" * 255),  # a type that is no UTF-8
        raw_header(0x0400, b"\x56" + b"\xfe" * 86),
    ],
)
def test_properties_that_could_not_be_written_again_do_not_hold_a_dead_letter_up(header: bytes) -> None:
    letter = a_letter(unpack(b"events", b"some.key", header, b"{}"))

    pack(letter)


@pytest.mark.parametrize("entry", [b"\x00A" + struct.pack(">I", 100_000) + b"V" * 100_000, b"\x01aV", b"\x00A\0\0\0\0"])
def test_a_header_table_takes_time_in_proportion_to_its_bytes(entry: bytes) -> None:
    message = unpack(b"", b"", flood(entry, 3_000_000), b"")  # a quadratic reader needs longer than a test may

    assert message.headers


def test_a_time_with_microseconds_in_its_offset_is_the_same_in_a_copy() -> None:
    message = a_message(headers={"event-time": "20260101T000000.000001+235959.999999"})

    again = read_metadata(a_letter(message), NOON)

    assert again.time == read_metadata(message, NOON).time != NOON


def test_an_event_with_a_long_id_in_many_bytes_can_be_the_cause_of_another() -> None:
    cause = read_metadata(a_message(headers={"event-id": "é" * 200}), NOON)

    caused = seal(OrderCreated(order_id="o-1"), source="shop", cause=cause)

    pack(to_message(caused, exchange="events"))


@pytest.mark.parametrize("body", [b'{"any": NaN}', b'{"any": [1, -Infinity]}', b'{"other": NaN}'])
def test_a_field_for_anything_takes_no_nan(body: bytes) -> None:
    class Anything(Event, type="any.thing"):
        any: Any = None

    with pytest.raises(Unreadable):
        decode(decoder_for(Anything), Message(body))
    assert decode(decoder_for(Anything), Message(b'{"any": "NaN"}')).any == "NaN"


@pytest.mark.parametrize("keys", [3, "all", {"a": 1}, [], [None]])
def test_an_origin_is_not_read_from_a_death_that_tells_none(keys: object) -> None:
    assert origin_of(a_message(headers={"x-death": [{**DEATH, "routing-keys": keys}]})) == ("events", "order.created")


def test_a_receipt_with_half_a_surrogate_pair_is_none() -> None:
    told = b'{"replay": "\\ud800", "letter": "a", "outcome": "handled", "attempt": 1, "error": "", "fingerprint": ""}'

    assert read_receipt(Message(told)) is None


async def test_an_ack_that_is_too_short_is_left_to_aiormq_wherever_the_stream_is_cut() -> None:
    stream = b"\x01\x00\x01\x00\x00\x00\x04\x00\x3c\x00\x50\xce" + b"\x00" * 7 + b"\x01" + b"\x00" * 5
    for cut in range(len(stream)):
        passed: list[bytes] = []
        tap, splitter = Confirms(), Splitter(passed.append)
        splitter.tap(1, tap)
        waiting = tap.expect(a_message())

        splitter.feed(stream[:cut])
        splitter.feed(stream[cut:])
        splitter.end()

        assert not waiting.done()
        assert b"".join(passed) == stream


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HOLDFAST_BROKER__URL", "amqp://user:canary/word@host/"),
        ("HOLDFAST_BROKER__URL", "amqp://user:canary\N{ACCOUNT OF}@host/"),
        ("HOLDFAST_BROKER__URL", "amqp://user:canary]@host/"),
        ("HOLDFAST_IDEMPOTENCY__URL", "redis://:canary/word@host/"),
        ("HOLDFAST_IDEMPOTENCY__URL", ":canary@host:6379"),
    ],
)
def test_a_url_that_is_none_is_not_quoted(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)

    with pytest.raises(ConfigurationError) as caught:
        load_settings()

    assert name in str(caught.value) and "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HOLDFAST_PUBLISHER__VERSIONS", "[" * 50_000),
        ("HOLDFAST_BROKER__CA_FILE", "a" * 5_000),
        ("HOLDFAST_BROKER__URL_FILE", "a" * 5_000),
    ],
)
def test_a_value_that_breaks_its_reader_is_a_line_that_says_so(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)

    with pytest.raises(ConfigurationError, match=r"HOLDFAST_"):
        load_settings()


@pytest.mark.parametrize("cut", [1, 1_000])
def test_a_body_without_a_header_is_not_given_the_header_of_another_message(cut: int) -> None:
    passed: list[bytes] = []
    taken: list[Message] = []
    splitter = Splitter(passed.append)
    splitter.tap(1, a_tap(lambda message, tag, again: taken.append(message)))
    unfinished = delivery(1, b"x" * 20, message_id="m-1")[: -len(frame(ContentBody(b"x" * 20)))]
    whole, second = delivery(2, b"{}", message_id="m-2"), delivery(3, b"[]")
    headless = second[: second.index(b"\x02\x00\x01")] + frame(ContentBody(b"[]"))
    stream = unfinished + whole + headless

    for at in range(0, len(stream), cut):
        splitter.feed(stream[at : at + cut])
    splitter.end()

    assert [message.message_id for message in taken] == ["m-2"]
    assert b"".join(passed) == frame(ContentBody(b"[]"))
