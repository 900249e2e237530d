"""Reading what a hostile or broken producer can put into properties and headers.

pamqp raises for it, and aiormq then drops the connection: one such message would take every queue of the process
down again and again. Here a time beyond the calendar is no time, text that is no UTF-8 has replacement characters,
and a table that cannot be read is empty. `install` puts this into pamqp's own tables of decoders.
"""

import struct
from typing import Any

from pamqp import decode

_READ_TABLE = decode.field_table
_READ_ARRAY = decode.field_array
_READ_TIME = decode.timestamp


def install() -> None:
    """Make pamqp, in this process, read leniently. May be called again."""
    decode.METHODS.update(timestamp=time, shortstr=short_text, table=table, array=array)
    decode.TABLE_MAPPING.update({b"T": time, b"F": table, b"A": array})


def time(value: bytes) -> tuple[int, Any]:
    """A timestamp, or None where no calendar has it."""
    try:
        return _READ_TIME(value)
    except (ValueError, OverflowError, OSError):
        return 8, None


def short_text(value: bytes) -> tuple[int, str]:
    """A short string; bytes that are no UTF-8 become replacement characters."""
    length = value[0]
    return length + 1, value[1 : length + 1].decode("utf-8", "replace")


def table(value: bytes) -> tuple[int, Any]:
    """A field table, or an empty one where it cannot be read: a broken key, or nested beyond all bounds."""
    try:
        return _READ_TABLE(value)
    except (ValueError, KeyError, IndexError, RecursionError):
        return _skipped(value), {}


def array(value: bytes) -> tuple[int, Any]:
    """A field array, or an empty one where it cannot be read."""
    try:
        return _READ_ARRAY(value)
    except (ValueError, KeyError, IndexError, RecursionError):
        return _skipped(value), []


def _skipped(value: bytes) -> int:
    length: int = struct.unpack_from(">I", value)[0]
    return 4 + length
