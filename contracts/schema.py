"""The JSON Schema of an event class, with what pydantic knows of a field and leaves out of its own."""

from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from ..events import Event

DIALECT = "https://json-schema.org/draft/2020-12/schema"
LIMITS = "x-limits"
TYPE, VERSION, KEY = "x-event-type", "x-event-version", "x-event-key"

# Limits of these types are checked on reading, and JSON Schema has no word for them.
_LIMITED = frozenset({"date", "time", "datetime", "timedelta", "decimal"})
_WORDS = ("ge", "gt", "le", "lt", "tz_constraint", "now_op", "max_digits", "decimal_places", "multiple_of")


class _Schema(GenerateJsonSchema):
    def generate_inner(self, schema: Any) -> JsonSchemaValue:
        made = super().generate_inner(schema)
        if schema["type"] in _LIMITED:
            limits = {word: str(schema[word]) for word in _WORDS if schema.get(word) is not None}
            for part in made.get("anyOf", [made]):
                if limits:
                    part[LIMITS] = limits
        return made

    def decimal_schema(self, schema: core_schema.DecimalSchema) -> JsonSchemaValue:
        made = super().decimal_schema(schema)
        for part in made.get("anyOf", [made]):
            if part.get("type") == "string":
                part["format"] = "decimal"
        return made

    def dict_schema(self, schema: core_schema.DictSchema) -> JsonSchemaValue:
        made = super().dict_schema(schema)
        kind = schema.get("keys_schema", {}).get("type", "any")
        if kind not in ("str", "any"):
            made.setdefault("propertyNames", {"format": kind})
        return made


def schema_of(event: type[Event]) -> dict[str, Any]:
    """What a body of this type and version may be; the same class gives the same schema."""
    schema = event.model_json_schema(schema_generator=_Schema)
    about = {"$schema": DIALECT, TYPE: event.__event_type__, VERSION: event.__event_version__}
    if event.__event_key__ is not None:
        about[KEY] = event.__event_key__
    return {**schema, **about}


def file_name(event_type: str, version: int) -> str:
    """Where a schema is kept: `order.created.v2.json`."""
    return f"{event_type}.v{version}.json"
