"""A message is written as AMQP 0-9-1 says: pamqp, which others use, reads what we wrote."""

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pamqp.frame
import pytest
from builders import a_tap
from hypothesis import given
from hypothesis import strategies as st

from holdfast.broker.amqp.splitter import Splitter
from holdfast.broker.codec import EncodedHeaders, pack
from holdfast.events import Message, PublishError

texts = st.text(st.characters(codec="utf-8"), max_size=60)
names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=30)
times = st.integers(0, 2**32 - 1).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    texts,
    times,
    st.integers(-1000, 1000).map(lambda n: Decimal(n) / 100),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(names, inner, max_size=3)),
    max_leaves=6,
)
optional = st.none() | texts
messages = st.builds(
    Message,
    body=st.binary(max_size=200),
    exchange=texts,
    routing_key=texts,
    headers=st.dictionaries(names, values, max_size=5),
    message_id=optional,
    type=optional,
    content_type=optional,
    content_encoding=optional,
    correlation_id=optional,
    timestamp=st.none() | times,
    app_id=optional,
    priority=st.none() | st.integers(0, 255),
    reply_to=optional,
)


def frames(data: bytes) -> list[Any]:
    found = []
    while data:
        size, channel, frame = pamqp.frame.unmarshal(data)
        assert channel == 7
        found.append(frame)
        data = data[size:]
    return found


@given(messages, st.integers(9, 80))
def test_pamqp_reads_what_was_packed(message: Message, frame_max: int) -> None:
    method, header, *bodies = frames(pack(message).frames(7, frame_max))

    assert (method.name, method.exchange, method.routing_key) == (
        "Basic.Publish",
        message.exchange,
        message.routing_key,
    )
    assert (method.mandatory, method.immediate) == (True, False)
    assert b"".join(body.value for body in bodies) == message.body
    assert header.body_size == len(message.body)
    properties = header.properties
    assert properties.headers == message.headers
    assert (properties.delivery_mode, properties.timestamp) == (2, message.timestamp)
    for name in ("content_type", "content_encoding", "priority", "correlation_id", "reply_to", "message_id", "app_id"):
        assert getattr(properties, name) == getattr(message, name)
    assert properties.message_type == message.type


@given(messages)
def test_what_was_packed_is_delivered_as_the_same_message(message: Message) -> None:
    taken: list[Message] = []
    splitter = Splitter(lambda data: None)
    splitter.tap(7, a_tap(lambda message, tag, redelivered: taken.append(message)))
    published = pack(message).frames(7, 131_072)
    size = int.from_bytes(published[3:7])
    address = published[7 + 6 : 7 + size - 1]
    deliver = b"\x00\x3c\x00\x3c\x01c" + (1).to_bytes(8) + b"\x00" + address
    frame = b"\x01\x00\x07" + len(deliver).to_bytes(4) + deliver + b"\xce"

    splitter.feed(frame + published[8 + size :])

    assert taken == [message]


@given(messages)
def test_headers_that_are_encoded_already_are_packed_as_others_are(message: Message) -> None:
    encoded = replace(message, headers=EncodedHeaders(message.headers))

    assert pack(encoded) == pack(message)
    assert encoded.headers == message.headers


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"headers": {"a": object()}}, "header 'a'"),
        ({"headers": {"a": "\ud800"}}, "header 'a'"),
        ({"headers": {"x" * 129: 1}}, "longer than 128 bytes"),
        ({"headers": {"n": 2**63}}, "header 'n'"),
        ({"message_id": "x" * 256}, "property message_id"),
        ({"type": "é" * 128}, "property type"),
        ({"app_id": "\ud800"}, "half a surrogate"),
        ({"priority": 300}, "priority is 300"),
        ({"timestamp": datetime(1969, 1, 1, tzinfo=UTC)}, "1969"),
        ({"timestamp": datetime(2200, 1, 1, tzinfo=UTC)}, "2200"),
    ],
)
def test_what_amqp_cannot_carry_is_named(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(PublishError, match=named):
        pack(Message(b"{}", **changes))
