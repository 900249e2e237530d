"""A message as the payloads of its frames: `basic.publish`, content header, body (AMQP 0-9-1, 2.3.5)."""

import struct
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from pamqp import encode

from ...events import Message
from ..size import LAST_SECOND, check_properties, check_routes, header_size
from .translate import encodable

_FRAME = struct.Struct(">BHI")
_CONTENT = struct.Struct(">HHQH")  # class, weight, body size, flags
_LONG = struct.Struct(">I")
_TIME = struct.Struct(">Q")
_INTEGER = struct.Struct(">cq")
_PUBLISH = b"\x00\x3c\x00\x28\x00\x00"
_MANDATORY = b"\x01"
_END = b"\xce"
_PERSISTENT = b"\x02"
_PLAIN_INTEGERS = range(-(2**63), 2**63)


@dataclass(frozen=True, slots=True)
class Packed:
    """What `frames` makes the frames of one publish of. `headers` is how many bytes the headers take."""

    method: bytes
    header: bytes
    body: bytes
    headers: int

    def frames(self, channel: int, frame_max: int) -> bytes:
        """On a channel, the body in as many frames as it needs."""
        method, header, body = self.method, self.header, self.body
        parts = [
            _FRAME.pack(1, channel, len(method)), method, _END,
            _FRAME.pack(2, channel, len(header)), header, _END,
        ]  # fmt: skip
        piece = frame_max - 8
        for at in range(0, len(body), piece):
            part = body if len(body) <= piece else body[at : at + piece]
            parts += (_FRAME.pack(3, channel, len(part)), part, _END)
        return b"".join(parts)


def pack(message: Message) -> Packed:
    """Raises `ValueError` naming the header or property that AMQP cannot carry. Priority stays unset unless given:
    RabbitMQ 4.3 ranks 0 below none."""
    check_routes(message.headers)
    table = b"".join(map(_entry, message.headers.items())) if message.headers else b""
    try:
        flags, properties = _properties(message, table)
    except (struct.error, ValueError, AttributeError, OverflowError):
        check_properties(message)
        raise
    header = _CONTENT.pack(60, 0, len(message.body), flags) + properties
    return Packed(_method(message.exchange, message.routing_key), header, message.body, len(table))


@lru_cache(maxsize=1024)
def _method(exchange: str, key: str) -> bytes:
    return _PUBLISH + _short("exchange", exchange) + _short("routing key", key) + _MANDATORY


def _properties(message: Message, table: bytes) -> tuple[int, bytes]:
    flags, parts = 0x3000, []  # headers and delivery mode are always there
    if message.content_type is not None:
        flags |= 0x8000
        parts.append(_short("property content_type", message.content_type))
    if message.content_encoding is not None:
        flags |= 0x4000
        parts.append(_short("property content_encoding", message.content_encoding))
    parts += (_LONG.pack(len(table)), table, _PERSISTENT)
    if message.priority is not None:
        flags |= 0x0800
        parts.append(bytes((message.priority,)))
    if message.correlation_id is not None:
        flags |= 0x0400
        parts.append(_short("property correlation_id", message.correlation_id))
    if message.reply_to is not None:
        flags |= 0x0200
        parts.append(_short("property reply_to", message.reply_to))
    if message.message_id is not None:
        flags |= 0x0080
        parts.append(_short("property message_id", message.message_id))
    if message.timestamp is not None:
        flags |= 0x0040
        parts.append(_TIME.pack(_seconds(message.timestamp)))
    if message.type is not None:
        flags |= 0x0020
        parts.append(_short("property type", message.type))
    if message.app_id is not None:
        flags |= 0x0008
        parts.append(_short("property app_id", message.app_id))
    return flags, b"".join(parts)


def _short(name: str, text: str) -> bytes:
    data = text.encode()
    if len(data) > 255:
        raise ValueError(f"{name} is longer than 255 bytes")
    return bytes((len(data),)) + data


def _seconds(time: datetime) -> int:
    seconds = int((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp())
    if not 0 <= seconds <= LAST_SECOND:
        raise ValueError(f"the time {time.isoformat()} is not within 1970 and 2106")
    return seconds


def _entry(header: tuple[str, Any]) -> bytes:
    """One header. Texts and integers, which are nearly all, are written here, the rest by pamqp."""
    name, value = header
    if type(name) is str and name.isascii() and len(name) <= 128:
        if isinstance(value, str) and value.isascii():
            return bytes((len(name),)) + name.encode() + b"S" + _LONG.pack(len(value)) + value.encode()
        if type(value) is int and value in _PLAIN_INTEGERS:
            return bytes((len(name),)) + name.encode() + _INTEGER.pack(b"l", value)
    header_size(name, value)
    return encode.short_string(name) + encode.encode_table_value(encodable(value))
