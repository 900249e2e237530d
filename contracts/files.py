"""Schemas as files in a folder, one for each type and version; the same contract gives the same bytes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..events import ConfigurationError
from .catalogue import Catalogue
from .compare import Finding, compare, rule
from .schema import TYPE, VERSION, file_name, schema_of


def write_schemas(catalogue: Catalogue, folder: Path) -> list[Path]:
    """Write every schema; files of events that are no more are left, for `check` to report. Returns what it wrote."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, schema in _schemas(catalogue).items():
        (folder / name).write_text(json.dumps(schema, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
        written.append(folder / name)
    return written


def read_schemas(folder: Path) -> dict[str, dict[str, Any]]:
    """The schemas in a folder, by file name. Raises `ConfigurationError` where one cannot be read, or there is none."""
    schemas: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("*.json")):
        try:
            schema = json.loads(path.read_text())
        except (ValueError, RecursionError) as error:
            raise ConfigurationError(f"{path} is no JSON: {error}") from None
        if isinstance(schema, dict) and TYPE in schema and VERSION in schema:
            schemas[path.name] = schema
    if not schemas:
        raise ConfigurationError(
            f"{folder} holds no event schemas; write them with `holdfast events schema --to {folder}`"
        )
    return schemas


def check(catalogue: Catalogue, before: Mapping[str, Mapping[str, Any]]) -> dict[str, list[Finding]]:
    """What changed since, by file name; nothing for what did not."""
    now = _schemas(catalogue)
    changes: dict[str, list[Finding]] = {}
    for name in sorted({*before, *now}):
        if name not in before:
            changes[name] = [Finding(rule("a version added"), "", "nothing", "a new schema")]
        elif name not in now:
            changes[name] = [Finding(rule("a version removed"), "", "a schema", "nothing")]
        elif findings := compare(before[name], now[name]):
            changes[name] = findings
    return changes


def _schemas(catalogue: Catalogue) -> dict[str, dict[str, Any]]:
    return {file_name(entry.type, entry.version): schema_of(entry.event) for entry in catalogue.entries}
