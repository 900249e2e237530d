"""From the bytes of a content header to a `Message`, quickly for what is usual and leniently for what is not.

AMQP 0-9-1, 2.3.5.2 and 4.2.6. What cannot be read at all is left out: a message without properties is dead-lettered
later, where one that raised here would take its connection down.
"""

import struct
from dataclasses import fields
from datetime import datetime
from functools import lru_cache
from typing import Any

from ...events import Message
from .tables import BROKEN, short_text, table, time_of

_FLAGS = struct.Struct(">H")
_TIME = struct.Struct(">Q")
_PROPERTIES_AT = 12  # past class, weight and body size
_PROPERTIES = (
    (0x8000, "content_type", "text"),
    (0x4000, "content_encoding", "text"),
    (0x2000, "headers", "table"),
    (0x1000, "delivery_mode", "octet"),
    (0x0800, "priority", "octet"),
    (0x0400, "correlation_id", "text"),
    (0x0200, "reply_to", "text"),
    (0x0100, "expiration", "text"),
    (0x0080, "message_id", "text"),
    (0x0040, "timestamp", "time"),
    (0x0020, "type", "text"),
    (0x0010, "user_id", "text"),
    (0x0008, "app_id", "text"),
)
_FIELDS = [field.name for field in fields(Message)][3:]  # after body, exchange and routing key
_WASTE = len(_FIELDS)  # where properties go that a `Message` has no field for


def message_of(exchange: bytes, key: bytes, header: bytes, body: bytes) -> Message:
    """The message of a delivery: the payload of its header frame, and its body."""
    try:
        properties = _properties(header)
    except BROKEN:
        properties = [{}]
    return Message(body, short_text(exchange), short_text(key), *properties)


@lru_cache(maxsize=256)
def _present(flags: int) -> tuple[tuple[int, str], ...]:
    """The properties that are there: the field each goes to, and its kind."""
    return tuple(
        (_FIELDS.index(name) if name in _FIELDS else _WASTE, kind) for flag, name, kind in _PROPERTIES if flags & flag
    )


def _properties(header: bytes) -> list[Any]:
    """Values for `_FIELDS`."""
    (flags,) = _FLAGS.unpack_from(header, _PROPERTIES_AT)
    at = _PROPERTIES_AT + 2
    found: list[Any] = [None] * (_WASTE + 1)
    for place, kind in _present(flags):
        if kind == "text":
            begin = at + 1
            at = begin + header[at]
            text = header[begin:at]
            found[place] = str(text, "utf-8") if text.isascii() else short_text(text)
        elif kind == "table":
            found[place], at = table(header, at, len(header))
        elif kind == "octet":
            found[place] = header[at]
            at += 1
        else:
            (seconds,) = _TIME.unpack_from(header, at)
            found[place], at = _time(seconds), at + 8
    if found[0] is None:
        found[0] = {}
    del found[_WASTE]
    return found


@lru_cache(maxsize=64)
def _time(seconds: int) -> datetime | None:
    return time_of(seconds)
