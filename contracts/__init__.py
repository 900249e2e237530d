"""The contract of a worker as files: JSON Schema, what breaks whom, AsyncAPI, a page (floor 5)."""

from .asyncapi import asyncapi
from .catalogue import Catalogue, Entry, Role, catalogue_of
from .compare import Finding, compare
from .files import check, read_schemas, write_schemas
from .page import page
from .rules import RULES, rules_table
from .schema import schema_of

__all__ = [
    "RULES",
    "Catalogue",
    "Entry",
    "Finding",
    "Role",
    "asyncapi",
    "catalogue_of",
    "check",
    "compare",
    "page",
    "read_schemas",
    "rules_table",
    "schema_of",
    "write_schemas",
]
