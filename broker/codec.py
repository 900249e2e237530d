"""AMQP 0-9-1's encoding of messages: header tables, content headers and `basic.publish` (2.3.5, 4.2.5, 4.2.6).

Encoding is strict: a value without an AMQP form is refused before anything is sent, because it would fail half-way
through. Decoding is lenient: a hostile or broken producer must not take a connection down, so properties or a table
that cannot be read are left out. Decoding takes time in proportion to the bytes.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final

from ..events import Headers, Message, PublishError, TooLarge

HEADER_BUDGET: Final = 126_976
"""Bytes of headers that fit a frame of 131,072 with 4 KiB to spare for the other properties. A header frame cannot be
split."""

MAX_DEPTH: Final = 32
"""Tables and arrays in one another that are encoded."""

DEEPEST: Final = 100
"""Tables and arrays in one another that are decoded; those within are read as empty."""

BROKEN: Final = (ValueError, KeyError, IndexError, struct.error)
"""Errors of bytes that hold no table or properties."""

_FRAME: Final = struct.Struct(">BHI")
_CONTENT: Final = struct.Struct(">HHQH")  # class, weight, body size, flags
_FLAGS: Final = struct.Struct(">H")
_LONG: Final = struct.Struct(">I")
_TIME: Final = struct.Struct(">Q")
_INTEGER: Final = struct.Struct(">cq")
_FLOAT: Final = struct.Struct(">cd")
_DECIMAL: Final = struct.Struct(">Bi")
_END: Final = b"\xce"
_PUBLISH: Final = b"\x00\x3c\x00\x28\x00\x00"
_MANDATORY: Final = b"\x01"
_PERSISTENT: Final = b"\x02"
_OCTETS: Final = [bytes((number,)) for number in range(256)]
_LAST_SECOND: Final = 0xFFFF_FFFF  # pamqp reads a later one as milliseconds


def header_budget(frame_max: int) -> int:
    """Return how many bytes of headers fit where a frame has at most `frame_max` bytes."""
    return min(HEADER_BUDGET, frame_max - min(4_096, frame_max // 2))


class EncodedHeaders(dict[str, Any]):
    """Headers with their encoding, which a publish then does not repeat. They must not be changed.

    Raises `ValueError` naming the header that AMQP cannot carry."""

    __slots__ = ("encoded",)

    def __init__(self, headers: Headers) -> None:
        super().__init__(headers)
        self.encoded = encode_headers(headers)


def header_size(name: str, value: Any) -> int:
    """Return one header's encoded size in bytes. Raises `ValueError` if AMQP cannot carry it."""
    return len(encode_headers({name: value}))


def headers_size(headers: Headers) -> int:
    """Return the encoded size in bytes. Raises `ValueError` naming the header that AMQP cannot carry."""
    return len(encode_headers(headers))


def encode_headers(headers: Headers) -> bytes:
    """Return the entries of a header table, without its length.

    Raises `ValueError` naming the header that AMQP cannot carry."""
    if isinstance(headers, EncodedHeaders):
        return headers.encoded
    parts: list[bytes] = []
    name: Any = ""
    try:
        for name, value in headers.items():
            if type(value) is str:
                text = value.encode()
                parts += (_name(name), b"S", _LONG.pack(len(text)), text)
            elif type(value) is int:
                parts += (_name(name), _INTEGER.pack(b"l", value))
            else:
                parts += (_name(name), _encode(value, MAX_DEPTH))
    except (ValueError, struct.error) as error:
        raise ValueError(f"header {str(name)[:40]!r}: {_fault(error)}") from None
    return b"".join(parts)


@lru_cache(maxsize=1024)
def _name(name: Any) -> bytes:
    if not isinstance(name, str):
        raise ValueError(f"the name {name!r} is not text")
    text = name.encode()
    if len(text) > 128:
        raise ValueError(f"the name {name[:40]!r}... is longer than 128 bytes")
    return _OCTETS[len(text)] + text


def _encode(value: Any, depth: int) -> bytes:
    """Return a value with its type. `depth` is how many tables or arrays it may have in one another."""
    match value:
        case str():
            text = value.encode()
            return b"S" + _LONG.pack(len(text)) + text
        case bytes() | bytearray():
            return b"x" + _LONG.pack(len(value)) + value
        case Mapping() | list() | tuple() if not depth:
            raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
        case Mapping():
            inner = b"".join([_name(name) + _encode(one, depth - 1) for name, one in value.items()])
            return b"F" + _LONG.pack(len(inner)) + inner
        case list() | tuple():
            inner = b"".join([_encode(one, depth - 1) for one in value])
            return b"A" + _LONG.pack(len(inner)) + inner
        case _:
            return _encode_scalar(value)


def _encode_scalar(value: Any) -> bytes:
    match value:
        case None:
            return b"V"
        case bool():
            return b"t\x01" if value else b"t\x00"
        case int():
            return _INTEGER.pack(b"l", value)
        case float():
            return _FLOAT.pack(b"d", value)
        case Decimal():
            return b"D" + _encode_decimal(value)
        case datetime():
            return b"T" + _encode_time(value)
        case _:
            raise ValueError(f"a {type(value).__name__} has no AMQP form")


def _encode_decimal(value: Decimal) -> bytes:
    exponent = value.as_tuple().exponent
    if not isinstance(exponent, int):
        raise ValueError(f"{value} is not a number that AMQP can carry")
    places = max(0, -exponent)
    if not -255 <= exponent <= 10 or not -(2**31) <= value.scaleb(places) < 2**31:
        raise ValueError("the decimal does not fit 32 bits and 255 places")
    return _DECIMAL.pack(places, int(value.scaleb(places)))


def _encode_time(time: datetime) -> bytes:
    seconds = int((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp())
    if not 0 <= seconds <= _LAST_SECOND:
        raise ValueError(f"the time {time.isoformat()} is not within 1970 and 2106")
    return _TIME.pack(seconds)


def _fault(error: ValueError | struct.error) -> str:
    if isinstance(error, UnicodeEncodeError):
        return "the text holds half a surrogate pair, which UTF-8 has no form for"
    return "the number does not fit 64 bits" if isinstance(error, struct.error) else str(error)


@dataclass(slots=True, init=False)
class Packed:
    """The payloads of the frames of one publish. `headers` is the size of the header table in bytes."""

    method: bytes
    header: bytes
    body: bytes
    headers: int

    def __init__(self, method: bytes, header: bytes, body: bytes, headers: int) -> None:
        self.method, self.header, self.body, self.headers = method, header, body, headers

    def frames(self, channel: int, frame_max: int) -> bytes:
        """Return the frames on a channel, with the body in as many of them as it needs."""
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


def pack(message: Message, budget: int = HEADER_BUDGET) -> Packed:
    """Return a message as a publish that is persistent and mandatory.

    Priority stays unset unless given, because RabbitMQ 4.3 ranks 0 below none. Raises `TooLarge` if the headers take
    more than `budget` bytes or the routing key more than 255, and `PublishError` naming the header or property that
    AMQP cannot carry."""
    headers = message.headers
    try:
        for name in ("CC", "BCC"):  # in another form than a list RabbitMQ closes the channel
            if name in headers and not isinstance(headers[name], list | tuple):
                raise ValueError(f"header {name!r} is not a list of routing keys")
        table = encode_headers(headers) if headers else b""
        header = _encode_properties(message, table)
        method = _method(message.exchange, message.routing_key)
    except ValueError as error:
        if len(message.routing_key.encode(errors="replace")) > 255:
            key = message.routing_key[:40]
            raise TooLarge(f"the routing key {key!r}... has more than 255 bytes") from None
        raise PublishError(f"{_fault(error)}; not sent to {address(message)}") from None
    if len(table) > budget:
        raise TooLarge(f"the headers for {address(message)} take {len(table)} bytes; at most {budget} go")
    return Packed(method, header, message.body, len(table))


def address(message: Message) -> str:
    """Return exchange and routing key in words."""
    if message.exchange:
        return f"{message.routing_key!r} on exchange {message.exchange!r}"
    return f"queue {message.routing_key!r}"


@lru_cache(maxsize=1024)
def _method(exchange: str, key: str) -> bytes:
    parts = [_PUBLISH]
    for name, text in (("exchange", exchange.encode()), ("routing key", key.encode())):
        if len(text) > 255:
            raise ValueError(f"{name} is longer than 255 bytes")
        parts += (_OCTETS[len(text)], text)
    return b"".join((*parts, _MANDATORY))


def _encode_properties(message: Message, table: bytes) -> bytes:
    """Return the payload of the header frame."""
    try:
        flags, first, priority, reply_to, last = _shared_properties(
            message.content_type, message.content_encoding, message.priority, message.reply_to, message.type,
            message.app_id,
        )  # fmt: skip
        correlation_id = message_id = time = b""
        if message.correlation_id is not None:
            flags, text = flags | 0x0400, message.correlation_id.encode()
            correlation_id = _OCTETS[len(text)] + text
        if message.message_id is not None:
            flags, text = flags | 0x0080, message.message_id.encode()
            message_id = _OCTETS[len(text)] + text
        if message.timestamp is not None:
            flags, time = flags | 0x0040, _encode_time(message.timestamp)
    except (UnicodeEncodeError, IndexError):
        raise ValueError(_text_at_fault(message)) from None
    head, size = _CONTENT.pack(60, 0, len(message.body), flags), _LONG.pack(len(table))
    return b"".join((head, first, size, table, _PERSISTENT, priority, correlation_id, reply_to, message_id, time, last))


@lru_cache(maxsize=1024)
def _shared_properties(
    content_type: str | None, content_encoding: str | None, priority: int | None, reply_to: str | None,
    event_type: str | None, app_id: str | None,
) -> tuple[int, bytes, bytes, bytes, bytes]:  # fmt: skip
    """Return what many messages share: the flags, with those of headers and persistence, then content type and
    encoding, the priority, the queue to reply to, and type and application. Raises `IndexError` for a text that is too
    long."""
    if priority is not None and not 0 <= priority <= 255:
        raise ValueError(f"property priority is {priority}, not within 0 to 255")
    encoded: list[bytes] = []
    flags = 0x3000 if priority is None else 0x3800
    for flag, text in (
        (0x8000, content_type), (0x4000, content_encoding), (0x0200, reply_to), (0x0020, event_type), (0x0008, app_id),
    ):  # fmt: skip
        flags |= 0 if text is None else flag
        encoded.append(b"" if text is None else _OCTETS[len(text.encode())] + text.encode())
    kind, encoding, reply, event, application = encoded
    return flags, kind + encoding, b"" if priority is None else _OCTETS[priority], reply, event + application


def _text_at_fault(message: Message) -> str:
    """Return what is wrong with the first property that AMQP cannot carry."""
    for _, name, kind in _PROPERTIES:
        text = getattr(message, name, None) if kind == "text" else None
        try:
            if text is not None and len(text.encode()) > 255:
                return f"property {name} is longer than 255 bytes"
        except UnicodeEncodeError as error:
            return f"property {name}: {_fault(error)}"
    return "a property cannot be written"


_PROPERTIES_AT: Final = 12  # past class, weight and body size
_PROPERTIES: Final[tuple[tuple[int, str, str], ...]] = (
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
_FIELDS: Final = [field.name for field in fields(Message)][3:]  # after body, exchange and routing key
_WASTE: Final = len(_FIELDS)  # where properties go that a `Message` has no field for


def unpack(exchange: bytes, key: bytes, header: bytes, body: bytes) -> Message:
    """Return the message of a delivery from the payload of its header frame and its body."""
    values: list[Any] = [None] * (_WASTE + 1)
    flags: int
    try:
        (flags,) = _FLAGS.unpack_from(header, _PROPERTIES_AT)
        at = _PROPERTIES_AT + 2
        for field, kind in _present(flags):
            if kind == "text":
                begin = at + 1
                at = begin + header[at]
                try:
                    values[field] = header[begin:at].decode()
                except UnicodeDecodeError:
                    values[field] = _short_text(header[begin:at])
            elif kind == "table":
                values[field], at = decode_table(header, at, len(header))
            elif kind == "octet":
                values[field] = header[at]
                at += 1
            else:
                values[field] = _decode_time(_TIME.unpack_from(header, at)[0])
                at += 8
    except BROKEN:
        values = [None] * (_WASTE + 1)
    headers, message_id, event_type, content_type, encoding, correlation_id, time, app_id, priority, reply_to, _ = (
        values
    )
    try:
        to, by = exchange.decode(), key.decode()
    except UnicodeDecodeError:
        to, by = _short_text(exchange), _short_text(key)
    return Message(
        body, to, by, headers or {}, message_id, event_type, content_type, encoding, correlation_id, time, app_id,
        priority, reply_to,
    )  # fmt: skip


@lru_cache(maxsize=256)
def _present(flags: int) -> list[tuple[int, str]]:
    """Return the properties that are there: the field each goes to, and its kind."""
    return [
        (_FIELDS.index(name) if name in _FIELDS else _WASTE, kind) for flag, name, kind in _PROPERTIES if flags & flag
    ]


def _short_text(data: bytes) -> str:
    """Return a short string. Bytes that are not UTF-8 become replacement characters, as many as can be rewritten."""
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError:
        return str(data, "utf-8", "replace").encode()[:255].decode("utf-8", "ignore")


@lru_cache(maxsize=64)
def _decode_time(seconds: int) -> datetime | None:
    """Return a timestamp, None for one beyond 2106, which could not be written again. One that 32 bits do not hold is
    in milliseconds, as in pamqp."""
    if seconds <= _LAST_SECOND:
        return datetime.fromtimestamp(seconds, UTC)
    return datetime.fromtimestamp(seconds / 1000, UTC) if seconds <= _LAST_SECOND * 1000 else None


_NUMBERS: Final = {ord(kind): struct.Struct(f">{form}") for kind, form in zip("bBsuIilLfd", "bBhHiIqqfd", strict=True)}
_TEXT: Final = ord("S")


def decode_table(data: bytes, start: int, end: int, depth: int = 0) -> tuple[dict[str, Any], int]:
    """Return the table at `start`, and where it ends. Raises one of `BROKEN` if that is not before `end`."""
    at = start + 4
    last: int = at + _LONG.unpack_from(data, start)[0]
    if last > end:
        raise ValueError("a table is longer than what holds it")
    values: dict[str, Any] = {}
    length: int
    try:
        while at < last:
            named = at + 1 + data[at]
            name, kind, at = data[at + 1 : named].decode(), data[named], named + 1
            if kind == _TEXT:
                (length,) = _LONG.unpack_from(data, at)
                begin = at + 4
                at = begin + length
                try:
                    values[name] = data[begin:at].decode()
                except UnicodeDecodeError:
                    values[name] = data[begin:at]
            elif number := _NUMBERS.get(kind):
                (values[name],) = number.unpack_from(data, at)
                at += number.size
            else:
                values[name], at = _value(kind, data, at, last, depth + 1)
    except BROKEN:
        return {}, last
    return (values if at == last else {}), last


def _decode_array(data: bytes, start: int, end: int, depth: int) -> tuple[list[Any], int]:
    at = start + 4
    last: int = at + _LONG.unpack_from(data, start)[0]
    if last > end:
        raise ValueError("an array is longer than what holds it")
    values: list[Any] = []
    try:
        while at < last:
            value, at = _value(data[at], data, at + 1, last, depth + 1)
            values.append(value)
    except BROKEN:
        return [], last
    return (values if at == last else []), last


def _value(kind: int, data: bytes, at: int, end: int, depth: int) -> tuple[Any, int]:
    """Return the value of a kind at `at`, and where it ends."""
    if number := _NUMBERS.get(kind):
        return number.unpack_from(data, at)[0], at + number.size
    match chr(kind):
        case "S" | "x":
            after = at + 4 + _LONG.unpack_from(data, at)[0]
            content = data[at + 4 : after]
            return (_text(content) if kind == _TEXT else bytearray(content)), after
        case "t":
            return data[at] != 0, at + 1
        case "V" | "\0":
            return None, at
        case "T":
            return _decode_time(_TIME.unpack_from(data, at)[0]), at + 8
        case "D":
            places, digits = _DECIMAL.unpack_from(data, at)
            return Decimal(digits).scaleb(-places), at + _DECIMAL.size
        case "F" | "A" if depth > DEEPEST:  # not looked into, because reading would go as deep as the bytes do
            return ({} if kind == ord("F") else []), at + 4 + _LONG.unpack_from(data, at)[0]
        case "F":
            return decode_table(data, at, end, depth)
        case "A":
            return _decode_array(data, at, end, depth)
        case _:
            raise ValueError("a value of an unknown kind")


def _text(data: bytes) -> str | bytes:
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError:
        return data
