"""CloudEvents 1.0: what the `cloudevents` package writes we read, what we write it reads."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from builders import NOON, OrderCreated, a_message, some_settings
from cloudevents.core.bindings import amqp, rabbitmq
from cloudevents.core.v1.event import CloudEvent

from holdfast import PublishError, Unreadable
from holdfast.events import Message, decode, decoder_for, headers, read_metadata, seal
from holdfast.publisher import message_for

EVENT = CloudEvent(
    attributes={
        "type": "order.created",
        "source": "/shop",
        "id": "7",
        "time": datetime(2026, 1, 2, 12, 0, tzinfo=UTC),
        "subject": "o-1",
        "datacontenttype": "application/json",
        "eventversion": "2",
    },
    data={"order_id": "o-1", "total": 9.5},
)


def through_amqp(found: amqp.AMQPMessage) -> Message:
    told = dict(found.application_properties)
    kind = found.properties.get("content-type") or found.properties.get("content_type")
    return a_message(found.application_data, type=None, message_id=None, content_type=kind, headers=told)


def through_rabbitmq(found: rabbitmq.RabbitMQMessage) -> Message:
    kind = found.content_type
    return a_message(found.body, type=None, message_id=None, content_type=kind, headers=dict(found.headers))


@pytest.mark.parametrize(
    "message",
    [
        through_amqp(amqp.to_binary_event(EVENT)),
        through_amqp(amqp.to_structured_event(EVENT)),
        through_rabbitmq(rabbitmq.to_binary_event(EVENT)),
        through_rabbitmq(rabbitmq.to_structured_event(EVENT)),
    ],
    ids=["amqp binary", "amqp structured", "rabbitmq binary", "rabbitmq structured"],
)
def test_a_cloudevent_of_the_official_package_is_read(message: Message) -> None:
    metadata = read_metadata(message, datetime.now(UTC))

    assert (metadata.event_id, metadata.event_type, metadata.version) == ("/shop#7", "order.created", 2)
    assert (metadata.source, metadata.key, metadata.time) == ("/shop", "o-1", NOON)
    assert decode(decoder_for(OrderCreated), message) == OrderCreated(order_id="o-1", total=9.5)


def published(form: str) -> Message:
    envelope = seal(OrderCreated(order_id="ö-1"), source="the shop", event_id="e-1", now=NOON)
    return message_for(envelope, some_settings(publisher={"format": form}), None)


@pytest.mark.parametrize("form", ["cloudevents-binary", "cloudevents-structured"])
def test_what_is_written_on_request_is_read_by_the_official_package_and_by_us(form: str) -> None:
    message = published(form)

    theirs = amqp.from_amqp_event(
        amqp.AMQPMessage({"content-type": message.content_type}, dict(message.headers), message.body)
    )

    assert (theirs.get_id(), theirs.get_type(), theirs.get_source()) == ("e-1", "order.created", "the%20shop")
    assert (theirs.get_time(), theirs.get_subject()) == (NOON, "ö-1")
    assert theirs.get_extension("eventversion") == "2" and theirs.get_data() == {"order_id": "ö-1", "total": 1.0}
    assert read_metadata(message, NOON).event_id == "e-1"
    assert decode(decoder_for(OrderCreated), message) == OrderCreated(order_id="ö-1")


def test_without_the_wish_nothing_of_cloudevents_is_written() -> None:
    message = published("plain")

    assert message.content_type == "application/json" and set(message.headers) == {
        headers.EVENT_ID, headers.EVENT_VERSION, headers.EVENT_TIME, headers.EVENT_KEY,
    }  # fmt: skip


def test_two_sources_may_use_the_same_id() -> None:
    ids = {
        read_metadata(a_message(headers={f"ce-{k}": v for k, v in told.items()}), NOON).event_id
        for told in ({"specversion": "1.0", "id": "1", "source": s, "type": "x"} for s in ("/a", "/b", "/" + "c" * 400))
    }

    assert len(ids) == 3 and all(len(one) <= 255 for one in ids)


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b"{}", b'{"specversion": "1.0"}', b'{"specversion": "1.0", "data_base64": "?"}', b"[" * 9999]
)
def test_a_broken_structured_event_is_unreadable_and_still_has_an_identity(body: bytes) -> None:
    message = a_message(body, content_type="application/cloudevents+json")

    assert read_metadata(message, NOON).event_id == "m-1"
    with pytest.raises(Unreadable):
        decode(decoder_for(OrderCreated), message)


def test_data_in_base64_is_read() -> None:
    event: dict[str, Any] = {"specversion": "1.0", "data_base64": "eyJvcmRlcl9pZCI6ICJvIn0="}
    message = a_message(json.dumps(event).encode(), content_type="application/cloudevents+json; charset=utf-8")

    assert decode(decoder_for(OrderCreated), message) == OrderCreated(order_id="o")


@pytest.mark.parametrize("form", ["cloudevents-binary", "cloudevents-structured"])
def test_an_attribute_that_utf_8_has_no_form_for_is_refused_like_any_other_publish(form: str) -> None:
    sealed = seal(OrderCreated(order_id="o-1", total=1), source="\ud800")

    with pytest.raises(PublishError, match="half a surrogate pair"):
        message_for(sealed, some_settings(publisher={"format": form}), None)
