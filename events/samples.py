"""Samples of what a field takes, made from the schema that pydantic has of it."""

from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from pydantic_core import SchemaValidator, to_json

Schema = Mapping[str, Any]
Definitions = Mapping[str, Schema]

_DEEPEST = 20  # schemas in one another
_MOST = 24  # samples of one schema
_NOON = datetime(2026, 1, 2, 12, 0, 0, 5, UTC)
_SCALARS: dict[str, tuple[Any, ...]] = {
    "any": ("a",),
    "none": (None,),
    "bool": (True, False),
    "int": (7, 0, 1, -1, 10, 100, 1000),
    "float": (1.5, 0.0, 0.5, -1.5, 10.0, 1e6),
    "decimal": (Decimal("1.5"), Decimal(1), Decimal("-0.25"), Decimal("1000.00")),
    "complex": (1 + 2j,),
    "bytes": (b"a", b"abcdefgh", b"a" * 32),
    "date": (_NOON.date(), date(2999, 1, 1), date(1999, 1, 1)),
    "datetime": (_NOON, _NOON.replace(tzinfo=None), _NOON.replace(year=2999), _NOON.replace(year=1999)),
    "time": (time(12, 0, 0, 5), time(12, tzinfo=UTC)),
    "timedelta": (timedelta(days=1, seconds=2, microseconds=3), timedelta(seconds=-1)),
    "uuid": (UUID("6ed1a2f5-0bb8-4d0c-9a3f-1f6a52f0c0de"), UUID("018cc251-f400-7000-8000-000000000000")),
    "url": ("https://example.com/a",),
    "multi-host-url": ("amqp://example.com/a",),
}
_TEXTS = ("a", "A", "1", "Ab-1", "a@example.com", "2026-01-02", "https://example.com/")
EXTRA = {"extra_sample": "a"}
"""A field that no class has, for those that keep such fields."""

_WRAPPED = ("schema", "lax_schema", "python_schema")


def samples_of(schema: Schema, known: Definitions) -> list[Any]:
    """Return the samples that a field takes."""
    whole = {"type": "definitions", "schema": schema, "definitions": list(known.values())} if known else schema
    try:
        validator = SchemaValidator(whole)
    except Exception:  # noqa: BLE001 (a schema that cannot stand alone)
        return []
    valid = []
    for sample in _samples(schema, known, 0):
        try:
            validator.validate_python(sample, by_alias=False, by_name=True)
        except Exception:  # noqa: BLE001 (a validator of the user's may raise anything)
            continue
        valid.append(sample)
    return valid


def _samples(schema: Schema, known: Definitions, depth: int) -> list[Any]:
    kind = schema["type"]
    if depth > _DEEPEST:
        return []
    if kind in _SCALARS:
        return [*_SCALARS[kind], *_bounds(schema)]
    if kind == "str":
        return _texts(schema)
    if kind in _COMPOUND:
        samples: list[Any] = _COMPOUND[kind](schema, known, depth + 1)
        return samples[:_MOST]
    inner = next((schema[name] for name in _WRAPPED if name in schema), None)
    return [] if inner is None else _samples(inner, known, depth + 1)


def _bounds(schema: Schema) -> list[Any]:
    """Return the limits of a number or a time, and what is next to them."""
    given = [schema[name] for name in ("ge", "gt", "le", "lt", "multiple_of") if name in schema]
    steps = (timedelta(0), timedelta(days=1), timedelta(days=-1)) if given and not _is_number(given[0]) else (0, 1, -1)
    return [limit + step for limit in given for step in steps]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | Decimal)


def _texts(schema: Schema) -> list[Any]:
    least, most = schema.get("min_length") or 1, schema.get("max_length") or 64
    lengths = {least, min(most, 64)} if "pattern" not in schema else {*range(least, min(least + 12, most + 1))}
    return [*_TEXTS, *(letter * length for length in sorted(lengths) for letter in ("a", "A", "1"))]


def _of_list(schema: Schema, known: Definitions, depth: int) -> list[Any]:
    items = _samples(schema.get("items_schema", _ANY), known, depth)
    least = schema.get("min_length") or 0
    whole = [items[:1] * max(1, least), items[:2], [], *([item] for item in items[2:])] if items else [[]]
    make = {"set": _set_of, "frozenset": _set_of}.get(schema["type"], list)
    return [make(sample) for sample in whole]


def _set_of(items: list[Any]) -> Any:
    try:
        return set(items)
    except TypeError:
        return items


def _of_tuple(schema: Schema, known: Definitions, depth: int) -> list[Any]:
    parts = [_samples(item, known, depth) for item in schema["items_schema"]]
    if not all(parts):
        return []
    return [tuple(part[n % len(part)] for part in parts) for n in range(max(map(len, parts), default=1))]


def _of_dict(schema: Schema, known: Definitions, depth: int) -> list[Any]:
    keys = _samples(schema.get("keys_schema", _ANY), known, depth)
    values = _samples(schema.get("values_schema", _ANY), known, depth)
    if not keys or not values:
        return [{}]
    try:
        return [*({key: values[0]} for key in keys), *({keys[0]: value} for value in values[1:]), {}]
    except TypeError:  # a key that is no key
        return [{}]


def _of_choices(schema: Schema, known: Definitions, depth: int) -> list[Any]:
    choices = schema["choices"].values() if isinstance(schema["choices"], Mapping) else schema["choices"]
    parts = (choice[0] if isinstance(choice, tuple) else choice for choice in choices)
    samples = [_samples(part, known, depth) for part in parts]
    return [*(each[0] for each in samples if each), *(value for each in samples for value in each[1:])]


def _of_fields(schema: Schema, known: Definitions, depth: int) -> list[Any]:
    """Return samples of a nested model, dataclass or typed dictionary, each field by its own name."""
    fields = schema["fields"]
    named = fields.items() if isinstance(fields, Mapping) else ((field["name"], field) for field in fields)
    parts = {name: _samples(field["schema"], known, depth) for name, field in named}
    parts = {name: values for name, values in parts.items() if values}
    first = {name: values[0] for name, values in parts.items()}
    return [first, *({**first, name: value} for name, values in parts.items() for value in values[1:])]


def _of_model(schema: Schema, known: Definitions, depth: int) -> list[Any]:
    samples = _samples(schema["schema"], known, depth)
    keeps_extra = schema.get("config", {}).get("extra_fields_behavior") == "allow"
    return [{**sample, **EXTRA} for sample in samples] if keeps_extra else samples


def _of_reference(schema: Schema, known: Definitions, depth: int) -> list[Any]:
    return _samples(known[schema["schema_ref"]], known, depth) if schema["schema_ref"] in known else []


_ANY: Schema = {"type": "any"}
_COMPOUND: dict[str, Any] = {
    "list": _of_list,
    "set": _of_list,
    "frozenset": _of_list,
    "generator": _of_list,
    "tuple": _of_tuple,
    "dict": _of_dict,
    "union": _of_choices,
    "tagged-union": _of_choices,
    "model": _of_model,
    "model-fields": _of_fields,
    "dataclass-args": _of_fields,
    "typed-dict": _of_fields,
    "definition-ref": _of_reference,
    "literal": lambda schema, known, depth: list(schema["expected"]),
    "enum": lambda schema, known, depth: list(schema["members"]),
    "nullable": lambda schema, known, depth: [*_samples(schema["schema"], known, depth), None],
    "chain": lambda schema, known, depth: _samples(schema["steps"][0], known, depth),
    "json": lambda schema, known, depth: [
        to_json(sample).decode() for sample in _samples(schema.get("schema", _ANY), known, depth)
    ],
}
