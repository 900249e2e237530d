"""How large headers are on the wire. A header frame cannot be split, so this is checked before anything is sent."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from ..events import Headers

HEADER_BUDGET = 126_976
"""Bytes of headers that fit a frame of 131,072 with 4 KiB to spare for the other properties."""

MAX_DEPTH = 32


def headers_size(headers: Headers) -> int:
    """An upper bound of the encoded size in bytes.

    Raises `ValueError` naming the header that AMQP 0-9-1 cannot carry.
    """
    return sum(header_size(name, value) for name, value in headers.items())


def header_size(name: str, value: Any) -> int:
    """An upper bound of one header's encoded size. Raises `ValueError` where AMQP cannot carry it."""
    key = len(name.encode()) if isinstance(name, str) else 256
    if key > 128:
        raise ValueError(f"header name {str(name)[:40]!r} is longer than 128 bytes or not text")
    try:
        return key + 2 + _value_size(value, MAX_DEPTH)
    except ValueError as error:
        raise ValueError(f"header {name!r}: {error}") from None


def _value_size(value: Any, depth: int) -> int:
    match value:
        case None | bool():
            return 2
        case int():
            if not -(2**63) <= value < 2**63:
                raise ValueError("the number does not fit 64 bits")
            return 9
        case float() | datetime() | Decimal():
            return 10
        case str():
            return 5 + len(value.encode("utf-8", "surrogatepass"))
        case bytes() | bytearray():
            return 5 + len(value)
        case Mapping() if depth:
            return 5 + sum(2 + len(str(k).encode()) + _value_size(v, depth - 1) for k, v in value.items())
        case list() | tuple() if depth:
            return 5 + sum(1 + _value_size(v, depth - 1) for v in value)
        case Mapping() | list() | tuple():
            raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
        case _:
            raise ValueError(f"a {type(value).__name__} has no AMQP form")
