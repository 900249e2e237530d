"""JSON Schema read as values: a closed union of the forms of a value. A schema that is not understood is kept whole."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

_SAYS_NOTHING = frozenset({"title", "description", "default", "examples", "deprecated", "$schema", "$defs"})
_SAYS_NOTHING_BUT_OURS = ("x-event-",)
LOWER, UPPER = ("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")
ORDERED = {"minLength": 1, "minItems": 1, "minProperties": 1, "maxLength": -1, "maxItems": -1, "maxProperties": -1}
_NARROWING = frozenset(
    {*LOWER, *UPPER, *ORDERED, "pattern", "format", "contentEncoding", "contentMediaType", "multipleOf", "uniqueItems",
     "propertyNames", "x-limits"}
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Anything:
    """Whatever JSON can say."""


@dataclass(frozen=True, slots=True)
class Plain:
    """`null`, `boolean`, `integer`, `number` or `string`, within limits."""

    kind: str
    limits: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Members:
    """One of these values."""

    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Array:
    """A list of `items`, or of one schema for each position where `positions` has them."""

    items: Any
    positions: tuple[Any, ...] | None
    limits: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Fields:
    """An object with fields; unknown ones are ignored by whoever reads it."""

    fields: Mapping[str, Any]
    required: frozenset[str]


@dataclass(frozen=True, slots=True)
class Map:
    """An object whose keys are data."""

    values: Any
    limits: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Opaque:
    """Something said in words this program does not know: equal or not, nothing in between."""

    schema: Any


Shape: TypeAlias = Anything | Plain | Members | Array | Fields | Map | Opaque


def shapes(schema: Any, root: Mapping[str, Any]) -> list[Shape]:
    """The alternatives of a schema, references followed."""
    if schema is True:
        return [Anything()]
    if not isinstance(schema, dict):
        return [Opaque(schema)]
    said = {
        word: value
        for word, value in schema.items()
        if word not in _SAYS_NOTHING and not word.startswith(_SAYS_NOTHING_BUT_OURS)
    }
    if set(said) == {"$ref"}:
        return shapes(resolve(said["$ref"], root), root)
    if set(said) in ({"oneOf", "discriminator"}, {"anyOf"}):
        return [shape for part in said.get("oneOf") or said["anyOf"] for shape in shapes(part, root)]
    return [_shape(said, root)]


def resolve(reference: str, root: Mapping[str, Any]) -> Any:
    """The schema that `#/$defs/Name` names."""
    return root.get("$defs", {}).get(reference.removeprefix("#/$defs/"), reference)


def _shape(said: dict[str, Any], root: Mapping[str, Any]) -> Shape:
    limits = {word: value for word, value in said.items() if word in _NARROWING}
    words = set(said) - set(limits) - {"type"}
    kind = said.get("type")
    match kind:
        case _ if not said:
            return Anything()
        case _ if "const" in words and words == {"const"} and not limits:
            return Members((said["const"],))
        case _ if "enum" in words and words == {"enum"} and not limits:
            return Members(tuple(said["enum"]))
        case "null" | "boolean" | "integer" | "number" | "string" if not words:
            return Plain(kind, limits)
        case "array" if words <= {"items", "prefixItems"}:
            positions = tuple(said["prefixItems"]) if "prefixItems" in said else None
            return Array(said.get("items", True), positions, limits)
        case "object" if words <= {"properties", "required", "additionalProperties"}:
            return _object(said, limits)
    return Opaque(_resolved(said, root, ()))


def _object(said: dict[str, Any], limits: dict[str, Any]) -> Shape:
    more = said.get("additionalProperties", True)
    if "properties" not in said and more is not False:
        return Map(more, limits)
    if limits or not isinstance(more, bool):
        return Opaque(said)
    return Fields(said.get("properties", {}), frozenset(said.get("required", ())))


def _resolved(schema: Any, root: Mapping[str, Any], inside: tuple[str, ...]) -> Any:
    """With what its references stand for, so that two opaque schemas are equal only where they mean the same."""
    match schema:
        case {"$ref": str(name)} if name not in inside:
            return _resolved(resolve(name, root), root, (*inside, name))
        case dict():
            return {word: _resolved(part, root, inside) for word, part in schema.items() if word != "discriminator"}
        case list():
            return [_resolved(part, root, inside) for part in schema]
        case _:
            return schema
