"""Between Holdfast's `Message` and AMQP's properties."""

from collections.abc import Mapping
from typing import Any

from aiormq import spec
from aiormq.abc import DeliveredMessage
from pamqp.header import ContentHeader

from ...events import Message


def to_properties(message: Message) -> spec.Basic.Properties:
    """The properties of a persistent message. Priority stays unset unless given: 4.3 ranks 0 below none."""
    return spec.Basic.Properties(
        content_type=message.content_type,
        content_encoding=message.content_encoding,
        headers={name: encodable(value) for name, value in message.headers.items()},
        delivery_mode=2,
        priority=message.priority,
        correlation_id=message.correlation_id,
        reply_to=message.reply_to,
        message_id=message.message_id,
        timestamp=message.timestamp,
        message_type=message.type,
        app_id=message.app_id,
    )


def from_delivered(delivered: DeliveredMessage) -> Message:
    """What the broker delivered, as a `Message`."""
    header: ContentHeader = delivered.header
    properties = header.properties
    return Message(
        body=delivered.body,
        exchange=delivered.exchange or "",
        routing_key=delivered.routing_key or "",
        headers=properties.headers or {},
        message_id=properties.message_id,
        type=properties.message_type,
        content_type=properties.content_type,
        content_encoding=properties.content_encoding,
        correlation_id=properties.correlation_id,
        timestamp=properties.timestamp,
        app_id=properties.app_id,
        priority=properties.priority,
        reply_to=properties.reply_to,
    )


def encodable(value: Any) -> Any:
    """A header's value as pamqp takes it: it writes byte arrays from `bytearray` alone."""
    match value:
        case bytes():
            return bytearray(value)
        case Mapping():
            return {key: encodable(inner) for key, inner in value.items()}
        case list() | tuple():
            return [encodable(inner) for inner in value]
        case _:
            return value
