"""A catalogue as one HTML page that needs nothing else: each event's fields, its handlers and its publishers."""

import json
from collections.abc import Iterable
from io import StringIO
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.terminal_theme import SVG_EXPORT_THEME

from .catalogue import Catalogue, Role
from .compare import short
from .schema import schema_of

_WIDTH = 140


def page(catalogue: Catalogue) -> str:
    """Return the page."""
    console = Console(file=StringIO(), record=True, width=_WIDTH, markup=False, highlight=False)
    console.rule(f"Events of {catalogue.worker}, exchange {catalogue.exchange}")
    for entry in catalogue.entries:
        schema = schema_of(entry.event)
        console.print(f"\n{entry.type}, version {entry.version}", style="bold")
        console.print(f"Handled by {_names(entry.taken)}. Published by {_names(entry.published)}.")
        if entry.event.__dict__.get("__doc__"):
            console.print(entry.event.__doc__)
        for name, part in {entry.type: schema, **schema.get("$defs", {})}.items():
            console.print(_fields(name, part))
        console.print(json.dumps(schema, indent=2, sort_keys=True), style="dim")
    for key, role in catalogue.raw:
        console.print(f"\n{key}: taken without a class by {role.handler}")
    return console.export_html(theme=SVG_EXPORT_THEME)


def _fields(name: str, schema: dict[str, Any]) -> Table:
    required = schema.get("required", ())
    table = Table(name, "type", "", "")
    if "properties" not in schema:
        table.add_row("", short(schema), "", "")
    for field, part in schema.get("properties", {}).items():
        presence = "required" if field in required else "optional"
        table.add_row(field, short(part), presence, part.get("description", ""))
    return table


def _names(roles: Iterable[Role]) -> str:
    return ", ".join(role.handler for role in roles) or "nobody here"
