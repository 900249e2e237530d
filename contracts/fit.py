"""Whether one schema allows everything that another allows, and each path where it does not."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, assert_never

from .shape import LOWER, ORDERED, UPPER, Anything, Array, Fields, Map, Members, Opaque, Plain, Shape, shapes

What: TypeAlias = Literal["missing", "type", "enum", "limit", "unknown"]
Root: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Misfit:
    """Why a written value may not be readable. `written` and `read` are the schemas at that path."""

    what: What
    path: str
    written: Any
    read: Any


class Fit:
    """Compares what is written by one schema with what is read by another. Recursive types are taken to fit while
    they are being compared."""

    def __init__(self, written: Root, read: Root) -> None:
        self._written, self._read = written, read
        self._open: set[tuple[str, str]] = set()

    def misfits(self) -> list[Misfit]:
        """Empty where whatever is written can be read."""
        return list(self._schema(self._written, self._read, ""))

    def _schema(self, written: Any, read: Any, path: str) -> Iterator[Misfit]:
        pair = (json.dumps(written, sort_keys=True), json.dumps(read, sort_keys=True))
        if pair in self._open:
            return
        self._open.add(pair)
        try:
            misfits = self._alternatives(written, read, path)
        finally:
            self._open.discard(pair)
        yield from misfits

    def _alternatives(self, written: Any, read: Any, path: str) -> list[Misfit]:
        ways = shapes(read, self._read)
        misfits: list[Misfit] = []
        for shape in shapes(written, self._written):
            attempts = [list(self._shape(shape, way, path, written, read)) for way in ways]
            if not all(attempts):
                continue
            alike = [misfit for misfit, way in zip(attempts, ways, strict=True) if _alike(shape, way)]
            faults = alike[0] if len(alike) == 1 else [Misfit("type", path, written, read)]
            misfits += [fault for fault in faults if fault not in misfits]
        return misfits

    def _shape(  # noqa: C901 (a case for each pair)
        self, written: Shape, read: Shape, path: str, was: Any, now: Any
    ) -> Iterator[Misfit]:
        match written, read:
            case _, Anything():
                return
            case Opaque(), Opaque():
                if written.schema != read.schema:
                    yield Misfit("unknown", path, was, now)
            case (Opaque(), _) | (_, Opaque()):
                yield Misfit("unknown", path, was, now)
            case Members(), Members():
                if not {_text(value) for value in written.values} <= {_text(value) for value in read.values}:
                    yield Misfit("enum", path, was, now)
            case Members(), Plain():
                if any(read.kind not in _kinds(value) for value in written.values):
                    yield Misfit("type", path, was, now)
                elif read.limits:
                    yield Misfit("limit", path, was, now)
            case Plain(), Plain():
                if written.kind != read.kind and (written.kind, read.kind) != ("integer", "number"):
                    yield Misfit("type", path, was, now)
                elif not _within(written.limits, read.limits):
                    yield Misfit("limit", path, was, now)
            case Array(), Array():
                yield from self._array(written, read, path, was, now)
            case Fields(), Fields():
                yield from self._fields(written, read, path)
            case Map(), Map():
                if not _within(written.limits, read.limits):
                    yield Misfit("limit", path, was, now)
                yield from self._schema(written.values, read.values, f"{path}{{}}")
            case Fields(), Map(values=True) if not read.limits:
                return
            case ((Anything() | Plain() | Members() | Array() | Fields() | Map()), _):
                yield Misfit("type", path, was, now)
            case _:
                assert_never(written)

    def _array(self, written: Array, read: Array, path: str, was: Any, now: Any) -> Iterator[Misfit]:
        if not _within(written.limits, read.limits):
            yield Misfit("limit", path, was, now)
        if read.positions is None:
            for schema in written.positions if written.positions is not None else (written.items,):
                yield from self._schema(schema, read.items, f"{path}[]")
        elif written.positions is None or len(written.positions) != len(read.positions) or written.items != read.items:
            yield Misfit("type", path, was, now)
        else:
            for number, (one, other) in enumerate(zip(written.positions, read.positions, strict=True)):
                yield from self._schema(one, other, f"{path}[{number}]")

    def _fields(self, written: Fields, read: Fields, path: str) -> Iterator[Misfit]:
        for name, schema in read.fields.items():
            inner = f"{path}.{name}" if path else name
            theirs = written.fields.get(name)
            if theirs is not None:
                yield from self._schema(theirs, schema, inner)
            if name in read.required and name not in written.required:
                yield Misfit("missing", inner, theirs, schema)


def _alike(written: Shape, read: Shape) -> bool:
    """Whether one is the other's successor, so that what does not fit is inside."""
    return type(written) is type(read) and (not isinstance(written, Plain) or written.kind == read.kind)  # type: ignore[union-attr]


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _kinds(value: Any) -> frozenset[str]:
    match value:
        case None:
            return frozenset({"null"})
        case bool():
            return frozenset({"boolean"})
        case int():
            return frozenset({"integer", "number"})
        case float():
            return frozenset({"number"})
        case str():
            return frozenset({"string"})
        case _:
            return frozenset()


def _within(written: Mapping[str, Any], read: Mapping[str, Any]) -> bool:
    """Whether limits imply others. A limit that is not about more or less must be the same."""
    for word, bound in read.items():
        if word in LOWER + UPPER:
            if not _bounded(written, word, bound):
                return False
        elif word in ORDERED:
            least = written.get(word)
            if least is None or (least - bound) * ORDERED[word] < 0:
                return False
        elif word not in written or written[word] != bound:
            return False
    return True


def _bounded(written: Mapping[str, Any], word: str, bound: float) -> bool:
    sign = 1 if word in LOWER else -1
    including, excluding = LOWER if word in LOWER else UPPER
    at = written.get(including)
    beyond = written.get(excluding)
    if beyond is not None and (beyond - bound) * sign >= 0:
        return True
    return at is not None and ((at - bound) * sign > 0 or (at == bound and word == including))
