"""What a message takes on the wire, and whether it can go at all. A header frame cannot be split, and a value
without an AMQP form would fail half-way through sending, so this is checked before anything is sent."""

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from ..events import Headers, Message

HEADER_BUDGET = 126_976
"""Bytes of headers that fit a frame of 131,072 with 4 KiB to spare for the other properties."""

MAX_DEPTH = 32


def header_budget(frame_max: int) -> int:
    """How many bytes of headers go where a frame has at most `frame_max`."""
    return min(HEADER_BUDGET, frame_max - min(4_096, frame_max // 2))


def headers_size(headers: Headers) -> int:
    """An upper bound of the encoded size in bytes.

    Raises `ValueError` naming the header that AMQP 0-9-1 cannot carry.
    """
    return sum(header_size(name, value) for name, value in headers.items())


def header_size(name: str, value: Any) -> int:
    """An upper bound of one header's encoded size. Raises `ValueError` where AMQP cannot carry it."""
    try:
        return _key_size(name) + 1 + _value_size(value, MAX_DEPTH)
    except ValueError as error:
        raise ValueError(f"header {str(name)[:40]!r}: {error}") from None


def check_properties(message: Message) -> None:
    """Raises `ValueError` naming the property that AMQP cannot carry."""
    for name in _SHORT_STRINGS:
        if (text := getattr(message, name)) is not None and _text_size(text) > 255:
            raise ValueError(f"property {name} is longer than 255 bytes")
    if message.priority is not None and not 0 <= message.priority <= 255:
        raise ValueError(f"property priority is {message.priority}, not within 0 to 255")
    if message.timestamp is not None:
        _check_time(message.timestamp)


def check_routes(headers: Headers) -> None:
    """Raises `ValueError` where a header names further routing keys in a form for which RabbitMQ closes the channel."""
    for name in ("CC", "BCC"):
        if name in headers and not isinstance(headers[name], list | tuple):
            raise ValueError(f"header {name!r} is not a list of routing keys")


_SHORT_STRINGS = ("message_id", "type", "content_type", "content_encoding", "correlation_id", "app_id", "reply_to")
_LARGEST_FLOAT = 3.4028235677973366e38  # a float goes as 32 bits; whatever reaches this rounds to more than they hold
LAST_SECOND = 0xFFFF_FFFF  # pamqp reads what is later as milliseconds


def _value_size(value: Any, depth: int) -> int:
    match value:
        case None | bool() | int() | float() | Decimal() | datetime():
            return _scalar_size(value)
        case str():
            return 5 + _text_size(value)
        case bytes() | bytearray():
            return 5 + len(value)
        case Mapping() | list() | tuple() if not depth:
            raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
        case Mapping():
            return 5 + sum(_key_size(name) + _value_size(inner, depth - 1) for name, inner in value.items())
        case list() | tuple():
            return 5 + sum(_value_size(inner, depth - 1) for inner in value)
        case _:
            raise ValueError(f"a {type(value).__name__} has no AMQP form")


def _scalar_size(value: bool | int | float | Decimal | datetime | None) -> int:
    match value:
        case None | bool():
            return 2
        case int():
            if not -(2**63) <= value < 2**63:
                raise ValueError("the number does not fit 64 bits")
            return 9
        case float():
            if _LARGEST_FLOAT <= abs(value) < float("inf"):
                raise ValueError("the number does not fit a 32 bit float")
            return 5
        case Decimal():
            _check_decimal(value)
            return 6
        case datetime():
            _check_time(value)
            return 9


def _key_size(name: Any) -> int:
    if not isinstance(name, str):
        raise ValueError(f"the name {name!r} is not text")
    size = _text_size(name)
    if size > 128:
        raise ValueError(f"the name {name[:40]!r}... is longer than 128 bytes")
    return 1 + size


def _text_size(text: str) -> int:
    try:
        return len(text) if text.isascii() else len(text.encode())
    except UnicodeEncodeError:
        raise ValueError("the text holds half a surrogate pair, which UTF-8 has no form for") from None


def _check_decimal(value: Decimal) -> None:
    exponent = value.as_tuple().exponent
    if not isinstance(exponent, int):
        raise ValueError(f"{value} is not a number that AMQP can carry")
    if not -255 <= exponent <= 10 or not -(2**31) <= value.scaleb(max(0, -exponent)) < 2**31:
        raise ValueError("the decimal does not fit 32 bits and 255 places")


def _check_time(time: datetime) -> None:
    moment = time if time.tzinfo else time.replace(tzinfo=UTC)
    if not 0 <= moment.timestamp() <= LAST_SECOND:
        raise ValueError(f"the time {time.isoformat()} is not within 1970 and 2106")
