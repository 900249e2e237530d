"""The two forms of an event: what is written must be read as the same value. Sample events show it.

A sample is a value that a field takes, made from the schema that pydantic has of it. A field whose values no sample
hits, because of a pattern or a validator of the user's, is not compared.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from .samples import EXTRA, Definitions, Schema, samples_of

_NO_FIELDS: Schema = {"type": "model-fields", "fields": {}}


def extra_of(cls: type[BaseModel]) -> Literal["ignore"] | None:
    """Return what the reading of a class does with unknown fields: it ignores them, unless the class keeps them."""
    return None if cls.model_config.get("extra") == "allow" else "ignore"


def fault_in_forms(cls: type[BaseModel]) -> str | None:
    """Return which field is written as one value and read as another, in one line; None where none is known to be."""
    events = _events(cls)
    for event in events:
        if fault := _fault(cls, event):
            return fault
    return None


def _fault(cls: type[BaseModel], event: BaseModel) -> str | None:
    try:
        body = cls.__pydantic_serializer__.to_json(event, by_alias=True, warnings=False)
    except Exception:  # noqa: BLE001 (a serializer of the user's; a publish would raise it)
        return None
    try:
        again = cls.__pydantic_validator__.validate_json(body, extra=extra_of(cls))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        names = ".".join(map(str, first["loc"]))
        return f"field {names!r} cannot be read as it was written: {first['msg']}"
    except Exception:  # noqa: BLE001 (a validator of the user's)
        return None
    for name in cls.model_fields:
        written, read = getattr(event, name), getattr(again, name)
        if not _alike(written, read):
            return f"field {name!r} is read as another value than was written: {written!r:.60} as {read!r:.60}"
    if (event.model_extra or {}) != (again.model_extra or {}):
        return f"it is read with other extra fields than were written: {list(again.model_extra or ())}"
    return None


def _alike(one: Any, other: Any) -> bool:
    """Return whether two values are equal, as far as their class can be compared."""
    if type(one) is type(other) and isinstance(one, BaseModel):
        fields = all(_alike(getattr(one, name), getattr(other, name)) for name in type(one).model_fields)
        return fields and (one.model_extra or {}) == (other.model_extra or {})
    if type(one) is type(other) and isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_alike, one, other))
    if isinstance(one, int | float):
        return bool(one == other)
    cannot_tell = type(one).__eq__ is object.__eq__  # type: ignore[comparison-overlap]
    return type(one) is type(other) and (cannot_tell or bool(one == other))


def _events(cls: type[BaseModel]) -> Iterable[BaseModel]:
    """Yield events of samples: first one with the first sample of each field, then each other sample in turn."""
    fields, known = _fields_of(cls.__pydantic_core_schema__)
    samples: dict[str, list[Any]] = {}
    for name, field in fields.items():
        valid = samples_of(field["schema"], known)
        if valid:
            samples[name] = valid
        elif cls.model_fields[name].is_required():
            return
    first = {name: values[0] for name, values in samples.items()}
    if cls.model_config.get("extra") == "allow":
        first |= EXTRA
    variants = [{**first, name: value} for name, values in samples.items() for value in values[1:]]
    for variant in (first, *variants):
        try:
            yield cls.__pydantic_validator__.validate_python(variant, by_alias=False, by_name=True)
        except Exception:  # noqa: BLE001 (a validator of the user's may raise anything)
            continue


def _fields_of(schema: Schema) -> tuple[Mapping[str, Schema], Definitions]:
    """Return the fields of a model, and the definitions that they refer to."""
    known: dict[str, Schema] = {}
    while schema["type"] != "model-fields":
        if schema["type"] == "definitions":
            known = {inner["ref"]: inner for inner in schema["definitions"]}
        schema = known[schema["schema_ref"]] if schema["type"] == "definition-ref" else schema.get("schema", _NO_FIELDS)
    return schema["fields"], known
