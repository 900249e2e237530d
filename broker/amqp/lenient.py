"""Makes pamqp read what a hostile or broken producer can put into properties and headers as we do.

pamqp raises for it, and aiormq then drops the connection: one such message would take every queue of the process
down again and again. `install` puts the readers of `tables` into pamqp's own table of decoders.
"""

import struct
from typing import Any

from pamqp import decode

from . import tables


def install() -> None:
    """Make pamqp, in this process, read leniently. May be called again."""
    decode.METHODS.update(timestamp=time, shortstr=short_text, table=table)


def time(value: bytes) -> tuple[int, Any]:
    """A timestamp, or None where no calendar has it."""
    return 8, tables.time_of(struct.unpack_from(">Q", value)[0])


def short_text(value: bytes) -> tuple[int, str]:
    """A short string; bytes that are no UTF-8 become replacement characters."""
    length = value[0]
    return length + 1, tables.short_text(value[1 : length + 1])


def table(value: bytes) -> tuple[int, Any]:
    """A field table, or an empty one where it cannot be read."""
    try:
        found, end = tables.table(value, 0, len(value))
    except tables.BROKEN:
        return 4 + int(struct.unpack_from(">I", value)[0]), {}
    return end, found
