"""One pass over the headers reads what the separate readers read, whatever the headers hold."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from builders import NOON, OrderCreated, a_message, some_metadata
from calls import entered
from hypothesis import example, given
from hypothesis import strategies as st

from holdfast.events import (
    Envelope,
    History,
    Incoming,
    Message,
    decode,
    decoder_for,
    headers,
    in_form,
    read_history,
    read_incoming,
    read_metadata,
    seal,
    to_message,
)
from holdfast.events.cloudevents import attributes_of

TEXTS = st.one_of(
    st.sampled_from(["", "e-1", "order.created", "é" * 128, "é" * 127, "x" * 255, "x" * 256, "\ud800", "NaN", "1"]),
    st.text(max_size=12),
)
BEYOND = ["0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-23:59"]
"""Times that are beyond the calendar in UTC; the first is .NET's local `DateTime` that nobody set."""
TIMES = st.one_of(
    st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30)), None])),
    st.datetimes().map(datetime.isoformat),
    st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat),
    st.sampled_from(["2026-01-02", "2026-01-02T12:00Z", "20260102", "2026-13-01T00:00:00+00:00", "1" * 43]),
    st.sampled_from(BEYOND),
)
NUMBERS = st.one_of(st.integers(-1, 3), st.sampled_from([10**6, 10**6 + 1, 10**9, 10**9 + 1, 2**63]))
VALUES = st.one_of(
    TEXTS,
    TIMES,
    NUMBERS,
    NUMBERS.map(str),
    st.none(),
    st.booleans(),
    st.binary(max_size=8),
    st.floats(),
    st.just(Decimal(2)),
    st.just([1]),
    st.just({"a": "b"}),
)
CLOUD_EVENTS = [f"{prefix}{name}" for prefix in ("cloudEvents:", "ce-") for name in ("specversion", "id", "source")]
NAMES = st.sampled_from(
    [
        headers.EVENT_ID,
        headers.EVENT_VERSION,
        headers.EVENT_TIME,
        headers.EVENT_KEY,
        headers.CAUSATION_ID,
        headers.CAUSED_BY,
        headers.TRACEPARENT,
        headers.ATTEMPT,
        headers.HELD_MS,
        headers.FIRST_FAILED_AT,
        headers.LAST_ERROR,
        headers.TRACED,
        headers.EXCHANGE,
        headers.ROUTING_KEY,
        headers.GUESSED_ID,
        headers.MESSAGE_ID,
        *CLOUD_EVENTS,
    ]
)
FORGED = st.dictionaries(NAMES, VALUES, max_size=6)
PROPERTIES = st.fixed_dictionaries(
    {},
    optional={
        "message_id": st.none() | TEXTS,
        "type": st.none() | TEXTS,
        "app_id": st.none() | TEXTS,
        "correlation_id": st.none() | TEXTS,
        "timestamp": st.none() | st.datetimes() | st.datetimes(timezones=st.just(UTC)),
    },
)
FORMS = st.sampled_from(["plain", "cloudevents-binary", "cloudevents-structured"])
STRUCTURED = (
    b'{"specversion": "1.0", "id": "i", "source": "/s", "type": "t", "subject": "k", "time": "2026-01-02T12:00:00Z"}'
)


def apart(message: Message) -> Incoming:
    """The same by the readers that look at one value after another."""
    return Incoming(message, read_metadata(message, NOON), read_history(message), brought_id(message))


def fits(text: str) -> bool:
    """Whether a text can be an id: half a surrogate pair cannot be written again."""
    return 0 < len(text.encode(errors="replace")) <= 255 and "\ud800" not in text


def brought_id(message: Message) -> bool:
    """Whether there is an id in a header, in `message_id` or in a CloudEvent that is not known to be a guess."""
    if headers.EVENT_ID not in message.headers and attributes_of(message) is not None:
        return True
    ids = (message.headers.get(headers.EVENT_ID), message.headers.get(headers.MESSAGE_ID, message.message_id))
    texts = (str(one) if type(one) is int and n == 0 else one for n, one in enumerate(ids))
    is_there = any(isinstance(text, str) and fits(text) for text in texts)
    return is_there and headers.GUESSED_ID not in message.headers


def written(form: Any = "plain") -> Message:
    cause = some_metadata(traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01")
    envelope: Envelope = seal(OrderCreated(order_id="o-1"), source="shop", cause=cause)
    return to_message(in_form(envelope, form), exchange="events")


@given(FORMS, FORGED, PROPERTIES)
@example("plain", {}, {})
@example("plain", {headers.EVENT_VERSION: True}, {})
@example("plain", {headers.EVENT_KEY: Decimal(0)}, {"app_id": ""})
def test_what_holdfast_wrote_and_somebody_forged_is_read_as_by_the_separate_readers(
    form: str, forged: dict[str, Any], properties: dict[str, Any]
) -> None:
    message = written(form)
    message = replace(message, headers={**message.headers, **forged}, **properties)

    assert read_incoming(message, NOON) == apart(message)


@given(FORGED, PROPERTIES, st.sampled_from([b"", b"{}", STRUCTURED, b"\xff"]), st.booleans())
@example({}, {}, STRUCTURED, True)
@example({}, {"message_id": None, "type": None}, b"body", False)
def test_what_any_other_producer_sent_is_read_as_by_the_separate_readers(
    sent: dict[str, Any], properties: dict[str, Any], body: bytes, structured: bool
) -> None:
    content_type = "application/cloudevents+json" if structured else "text/plain"
    message = replace(a_message(body, content_type=content_type, headers=sent), **properties)

    assert read_incoming(message, NOON) == apart(message)


def test_an_event_of_holdfast_is_read_back_whole() -> None:
    cause = some_metadata(traceparent="00-1-2-01")
    envelope = seal(OrderCreated(order_id="o-1"), source="shop", cause=cause)

    incoming = read_incoming(to_message(envelope, exchange="events"), NOON)

    assert incoming.metadata == envelope.metadata
    assert incoming.history == History()
    assert incoming.has_id


@pytest.mark.pure
def test_an_event_of_holdfast_is_read_in_two_functions_and_its_body_in_two_more() -> None:
    message, decoder = written(), decoder_for(OrderCreated)

    assert len(entered(lambda: read_incoming(message, NOON))) == 2
    assert len(entered(lambda: decode(decoder, message))) == 2


def test_a_message_that_brought_no_id_says_so() -> None:
    assert not read_incoming(a_message(message_id=None), NOON).has_id
    assert read_incoming(a_message(), NOON).has_id


@pytest.mark.parametrize("time", BEYOND)
@pytest.mark.parametrize("foreign", [{}, {"cloudEvents:specversion": "1.0", "cloudEvents:source": "s"}])
def test_a_time_that_is_beyond_the_calendar_in_utc_counts_as_none(time: str, foreign: dict[str, str]) -> None:
    named = {headers.EVENT_TIME: time} if not foreign else {"cloudEvents:id": "1", "cloudEvents:type": "t", **foreign}
    message = a_message(headers={**named, "cloudEvents:time": time})

    assert read_metadata(message, NOON).time == NOON


@pytest.mark.parametrize("offset", ["Z", "+05:30"])
def test_a_time_is_read_in_utc(offset: str) -> None:
    message = written()
    message = replace(message, headers={**message.headers, headers.EVENT_TIME: f"2026-01-02T17:30:00{offset}"})

    assert read_incoming(message, NOON).metadata.time.tzinfo is UTC
