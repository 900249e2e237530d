"""Figures in a block of memory: this process' own, or one that a supervisor shares with it and reads at any time.

The block outlives the process: counters go on where a killed process left them. A record is its size, how many values
it has, its key as JSON, and the values, each a double that is written in one piece. Records are only ever added, and
counted in the header once they are complete, so a reader needs no lock.
"""

import json
import mmap
import struct
from collections.abc import Iterator
from threading import Lock
from typing import TypeAlias

from .families import Family

Series: TypeAlias = tuple[str, ...]
"""The name of a family, and its label values in order."""

ROOM = 4 << 20
"""Bytes of a block: some ten thousand series. Memory is taken as it is used."""

Labels: TypeAlias = str | tuple[str, ...]
"""One label value, or several, or none."""

OTHER = "other"
_MOST_NAMES = 100
_HEADER = 8
_RECORD = struct.Struct("<II")


class SharedFigures:
    """The one writer of a block of memory. `memory` may hold what an earlier process counted."""

    def __init__(self, memory: mmap.mmap | None = None) -> None:
        self.memory = memory if memory is not None else mmap.mmap(-1, ROOM)
        self.values = memoryview(self.memory).cast("d")
        """All doubles of the block; `offset` says where those of a series begin."""
        self._used = memoryview(self.memory).cast("Q")
        self._offsets: dict[Series, int] = {series: offset for series, offset, _ in _records(self.memory)}
        self._lock = Lock()

    def offset(self, series: Series, size: int = 1) -> int:
        """Return where in `values` the `size` values of a series begin. New series of a full block share its end."""
        with self._lock:
            offset = self._offsets.get(series)
            if offset is None:
                offset = self._offsets[series] = self._add(series, size)
            return offset

    def _add(self, series: Series, size: int) -> int:
        key = json.dumps(series).encode()
        begin = _HEADER + self._used[0]
        values = begin + _RECORD.size + _padded(len(key))
        end = values + 8 * size
        if end > len(self.memory) - 8 * size:
            return (len(self.memory) - 8 * size) // 8
        _RECORD.pack_into(self.memory, begin, len(key), size)
        self.memory[begin + _RECORD.size : begin + _RECORD.size + len(key)] = key
        self.memory[values:end] = bytes(8 * size)
        self._used[0] = end - _HEADER
        return values // 8


def read(memory: mmap.mmap) -> Iterator[tuple[Series, tuple[float, ...]]]:
    """Return every series with its values."""
    values = memoryview(memory).cast("d")
    for series, offset, size in _records(memory):
        yield series, tuple(values[offset : offset + size])


def reset(memory: mmap.mmap, names: frozenset[str]) -> None:
    """Set the series of these families to 0, because what they describe ended with its process."""
    values = memoryview(memory).cast("d")
    for series, offset, size in _records(memory):
        if series[0] in names:
            for index in range(offset, offset + size):
                values[index] = 0.0


def _records(memory: mmap.mmap) -> Iterator[tuple[Series, int, int]]:
    end = _HEADER + int.from_bytes(memory[:_HEADER], "little")
    begin = _HEADER
    while begin < end:
        length, size = _RECORD.unpack_from(memory, begin)
        key = begin + _RECORD.size
        values = key + _padded(length)
        yield tuple(json.loads(memory[key : key + length])), values // 8, size
        begin = values + 8 * size


def _padded(length: int) -> int:
    return (length + 7) // 8 * 8


class Names:
    """A set of label values with a limit: the first hundred, and `other` for the rest."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def bounded(self, name: str) -> str:
        name = name[:100]
        if name not in self._known:
            if len(self._known) >= _MOST_NAMES:
                return OTHER
            self._known.add(name)
        return name


class Offsets(dict[Labels, int]):
    """Where in a block the figures begin of each of one family's label values, looked up once."""

    def __init__(self, figures: SharedFigures, family: Family) -> None:
        super().__init__()
        self._figures = figures
        self._family = family

    def __missing__(self, labels: Labels) -> int:
        series = (self._family.name, *((labels,) if isinstance(labels, str) else labels))
        self[labels] = offset = self._figures.offset(series, self._family.size)
        return offset
