"""What AMQP would make of a message, so that nothing works here that fails on RabbitMQ."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from ...events import Message, PublishError, TooLarge
from ..size import check_properties, check_routes, headers_size

_SHORT = 255  # bytes of a "short string"
_AS_THEY_ARE = frozenset({bool, bytearray, float, int, str, type(None)})


def as_carried(message: Message, *, max_body: int, header_budget: int) -> Message:
    """The message as a consumer will see it: own headers, lists for tuples, times in whole seconds of UTC.

    Raises `TooLarge`, and `PublishError` for what AMQP has no form for. The body is shared, never copied.
    """
    if len(message.body) > max_body:
        raise TooLarge(f"the body for {address(message)} has {len(message.body)} bytes; at most {max_body} go")
    try:
        size = headers_size(message.headers)
        check_properties(message)
        check_routes(message.headers)
    except ValueError as error:
        raise PublishError(f"{error}; not sent to {address(message)}") from None
    if size > header_budget:
        raise TooLarge(f"the headers for {address(message)} take {size} bytes; at most {header_budget} go")
    if _is_long(message.routing_key):
        raise TooLarge(f"the routing key {message.routing_key[:40]!r}... has more than {_SHORT} bytes")
    headers = {
        name: value if type(value) in _AS_THEY_ARE else _carried(value) for name, value in message.headers.items()
    }
    timestamp = None if message.timestamp is None else _whole_seconds(message.timestamp)
    return replace(message, headers=headers, timestamp=timestamp)


def address(message: Message) -> str:
    """Where a message was to go, in words."""
    if message.exchange:
        return f"{message.routing_key!r} on exchange {message.exchange!r}"
    return f"queue {message.routing_key!r}"


def _is_long(text: str) -> bool:
    return (len(text) if text.isascii() else len(text.encode())) > _SHORT


def _carried(value: Any) -> Any:
    match value:
        case bytes():
            return bytearray(value)
        case datetime():
            return _whole_seconds(value)
        case Mapping():
            return {str(name): _carried(inner) for name, inner in value.items()}
        case list() | tuple():
            return [_carried(inner) for inner in value]
        case _:
            return value


def _whole_seconds(time: datetime) -> datetime:
    return (time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)).replace(microsecond=0)
