"""A catalogue as one HTML page that needs nothing else: what there is, its fields, who takes and who publishes it."""

import json
from collections.abc import Mapping
from html import escape
from typing import Any

from .catalogue import Catalogue, Entry, Role
from .compare import short
from .schema import schema_of

_STYLE = """body { font: 16px/1.5 system-ui, sans-serif; color: #222 }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 1rem } th { text-align: left }
td, th { border-bottom: 1px solid #ddd; padding: .3rem .8rem .3rem 0; vertical-align: top }
code { font: 14px ui-monospace, monospace } section { margin-top: 2.5rem } .quiet { color: #666 }
@media (prefers-color-scheme: dark) { body { background: #161616; color: #ddd } td, th { border-color: #444 } }"""


def page(catalogue: Catalogue) -> str:
    """The page."""
    title = escape(f"Events of {catalogue.worker}")
    listed = "".join(
        f'<li><a href="#{_anchor(entry)}">{escape(entry.type)}</a> version {entry.version}</li>'
        for entry in catalogue.entries
    )
    raw = "".join(f"<li><code>{escape(key)}</code>: {_roles([role])}</li>" for key, role in catalogue.raw)
    others = f"<section><h2>Taken without a class</h2><ul>{raw}</ul></section>" if raw else ""
    sections = "".join(map(_section, catalogue.entries))
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>\n'
        f'<body><h1>{title}</h1><p class="quiet">Exchange <code>{escape(catalogue.exchange)}</code></p>'
        f"<ul>{listed}</ul>\n{sections}{others}</body></html>\n"
    )


def _section(entry: Entry) -> str:
    schema = schema_of(entry.event)
    description = f"<p>{escape(entry.event.__doc__ or '')}</p>" if entry.event.__dict__.get("__doc__") else ""
    parts = "".join(f"<h3>{escape(name)}</h3>{_fields(part)}" for name, part in sorted(schema.get("$defs", {}).items()))
    return (
        f'<section id="{_anchor(entry)}">'
        f'<h2>{escape(entry.type)} <span class="quiet">version {entry.version}</span></h2>'
        f"{description}<p>Handled by {_roles(entry.taken)}. Published by {_roles(entry.published)}.</p>"
        f"{_fields(schema)}{parts}"
        f"<details><summary>JSON Schema</summary><pre><code>"
        f"{escape(json.dumps(schema, indent=2, sort_keys=True))}</code></pre></details></section>\n"
    )


def _fields(schema: Mapping[str, Any]) -> str:
    required = schema.get("required", ())
    if "properties" not in schema:
        return f"<p><code>{escape(short(schema))}</code></p>"
    rows = "".join(
        f"<tr><td><code>{escape(name)}</code></td><td>{escape(short(field))}</td>"
        f"<td>{'required' if name in required else 'optional'}</td><td>{escape(field.get('description', ''))}</td></tr>"
        for name, field in schema["properties"].items()
    )
    return (
        f"<table><tr><th>field</th><th>type</th><th></th><th></th></tr>{rows}</table>" if rows else "<p>No fields.</p>"
    )


def _roles(roles: list[Role]) -> str:
    if not roles:
        return '<span class="quiet">nobody here</span>'
    return ", ".join(f"<code>{escape(role.handler)}</code>" for role in roles)


def _anchor(entry: Entry) -> str:
    return f"{escape(entry.type)}.v{entry.version}"
