"""Field tables (AMQP 0-9-1, 4.2.5.5, with RabbitMQ's types), as a hostile or broken producer may have written them.

Nothing here raises but for a length that leaves what holds it: a table that cannot be read is empty, and so is one in
more than `DEEPEST` others. It takes time in proportion to the bytes (pamqp copies the rest of them for each value).
"""

import struct
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, TypeAlias

from ..size import LAST_SECOND

DEEPEST = 100
BROKEN = (ValueError, KeyError, IndexError, struct.error)

_LONG = struct.Struct(">I")
_TIME = struct.Struct(">Q")
_DECIMAL = struct.Struct(">Bi")
_NUMBERS = {ord(kind): struct.Struct(f">{form}") for kind, form in zip("bBsuIilLfd", "bBhHiIqqfd", strict=True)}
_TEXT, _BOOLEAN = ord("S"), ord("t")

Found: TypeAlias = tuple[Any, int]
"""A value, and where it ends."""


def table(data: bytes, start: int, end: int, depth: int = 0) -> tuple[dict[str, Any], int]:
    """The table at `start`. Raises one of `BROKEN` where it does not end by `end`."""
    at = start + 4
    last = at + _LONG.unpack_from(data, start)[0]
    if last > end:
        raise ValueError("a table is longer than what holds it")
    found: dict[str, Any] = {}
    try:
        while at < last:
            named = at + 1 + data[at]
            name, kind, at = str(data[at + 1 : named], "utf-8"), data[named], named + 1
            if kind == _TEXT:
                begin = at + 4
                at = begin + _LONG.unpack_from(data, at)[0]
                text = data[begin:at]
                found[name] = str(text, "utf-8") if text.isascii() else _text(text)
            elif kind == _BOOLEAN:
                found[name], at = data[at] != 0, at + 1
            elif number := _NUMBERS.get(kind):
                (found[name],) = number.unpack_from(data, at)
                at += number.size
            else:
                found[name], at = _OTHERS[kind](data, at, last, depth + 1)
    except BROKEN:
        return {}, last
    return (found if at == last else {}), last


def time_of(seconds: int) -> datetime | None:
    """A timestamp; what no 32 bits hold is milliseconds, as pamqp has it. None where it is beyond 2106 even so, for
    then it could not be written again."""
    if seconds <= LAST_SECOND:
        return datetime.fromtimestamp(seconds, UTC)
    return datetime.fromtimestamp(seconds / 1000, UTC) if seconds <= LAST_SECOND * 1000 else None


def short_text(data: bytes) -> str:
    """A short string. Bytes that are no UTF-8 become replacement characters, as many as can be written again."""
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError:
        return str(data, "utf-8", "replace").encode()[:255].decode("utf-8", "ignore")


def _array(data: bytes, start: int, end: int, depth: int) -> Found:
    at = start + 4
    last = at + _LONG.unpack_from(data, start)[0]
    if last > end:
        raise ValueError("an array is longer than what holds it")
    found: list[Any] = []
    try:
        while at < last:
            value, at = _value(data, at, last, depth + 1)
            found.append(value)
    except BROKEN:
        return [], last
    return (found if at == last else []), last


def _value(data: bytes, at: int, end: int, depth: int) -> Found:
    kind, at = data[at], at + 1
    if kind == _TEXT:
        value, at = _bytes(data, at, end, depth)
        return _text(value), at
    if kind == _BOOLEAN:
        return data[at] != 0, at + 1
    if number := _NUMBERS.get(kind):
        return number.unpack_from(data, at)[0], at + number.size
    return _OTHERS[kind](data, at, end, depth)


def _text(data: bytes) -> str | bytes:
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError:
        return data


def _bytes(data: bytes, at: int, end: int, depth: int) -> Found:
    begin = at + 4
    after = begin + _LONG.unpack_from(data, at)[0]
    return data[begin:after], after


def _byte_array(data: bytes, at: int, end: int, depth: int) -> Found:
    value, at = _bytes(data, at, end, depth)
    return bytearray(value), at


def _decimal(data: bytes, at: int, end: int, depth: int) -> Found:
    places, digits = _DECIMAL.unpack_from(data, at)
    return Decimal(digits).scaleb(-places), at + _DECIMAL.size


def _time(data: bytes, at: int, end: int, depth: int) -> Found:
    return time_of(_TIME.unpack_from(data, at)[0]), at + 8


def _void(data: bytes, at: int, end: int, depth: int) -> Found:
    return None, at


def _nested(data: bytes, at: int, end: int, depth: int) -> Found:
    if depth > DEEPEST:  # not looked into: that would go as deep as the bytes do
        return {}, at + 4 + _LONG.unpack_from(data, at)[0]
    return table(data, at, end, depth)


def _nested_array(data: bytes, at: int, end: int, depth: int) -> Found:
    if depth > DEEPEST:
        return [], at + 4 + _LONG.unpack_from(data, at)[0]
    return _array(data, at, end, depth)


_OTHERS: dict[int, Callable[[bytes, int, int, int], Found]] = {
    ord("A"): _nested_array,
    ord("D"): _decimal,
    ord("F"): _nested,
    ord("T"): _time,
    ord("V"): _void,
    ord("x"): _byte_array,
    0: _void,
}
