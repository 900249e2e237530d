"""`holdfast events`: the contract of a worker, shown, written and checked. Nothing is connected to."""

import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ..contracts import Catalogue, Finding, Role, asyncapi, catalogue_of, check, page, read_schemas, write_schemas
from .load import load_worker


def show(target: str, *, as_json: bool) -> None:
    """Print every type and version of a worker's events."""
    catalogue = _catalogue(target)
    if as_json:
        print(json.dumps(_as_data(catalogue), indent=2))
        return
    table = Table("type", "version", "class", "handled by", "queue", "published by")
    for entry in catalogue.entries:
        taken, published = entry.taken, entry.published
        queues = "\n".join(role.queue for role in taken)
        table.add_row(
            entry.type, str(entry.version), entry.event.__name__, _names(taken), queues, _names(published, ", ")
        )
    for key, role in catalogue.raw:
        table.add_row(key, "any", "", role.handler, role.queue, "")
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    console.print(table)
    if catalogue.silent:
        names = ", ".join(catalogue.silent)
        console.print(f"what they publish is not said (publishes=): {names}", markup=False, soft_wrap=True)


def write_schema_files(target: str, folder: Path) -> None:
    """Write a JSON Schema file for each type and version, and print their paths."""
    for path in write_schemas(_catalogue(target), folder):
        print(path)


def check_against(target: str, folder: Path, *, side: str, as_json: bool) -> int:
    """Print what changed since the schemas in `folder` were written. Returns 1 where a change hurts the side that
    `side` names: `producers`, `consumers` or `both`."""
    changes = check(_catalogue(target), read_schemas(folder))
    breaking = [one for findings in changes.values() for one in findings if _hurts(one, side)]
    if as_json:
        rows = [_as_row(name, one, side) for name, findings in changes.items() for one in findings]
        print(json.dumps(rows, indent=2))
    else:
        for name, findings in changes.items():
            for one in findings:
                whom = f" (hurts {' and '.join(one.rule.hurts)})" if one.rule.hurts else ""
                print(f"{'breaks' if _hurts(one, side) else 'fine  '}  {name.removesuffix('.json')}: {one}{whom}")
        print(f"{len(breaking)} breaking" if breaking else "compatible")
    return 1 if breaking else 0


def write_docs(target: str, folder: Path, *, version: str) -> None:
    """Write `asyncapi.json` and `index.html`, and print their paths."""
    catalogue = _catalogue(target)
    folder.mkdir(parents=True, exist_ok=True)
    document = json.dumps(asyncapi(catalogue, version=version), indent=2, ensure_ascii=False)
    for name, text in (("asyncapi.json", document + "\n"), ("index.html", page(catalogue))):
        (folder / name).write_text(text)
        print(folder / name)


def _catalogue(target: str) -> Catalogue:
    worker = load_worker(target)
    for spec in worker.selected():
        spec.prepare({})
    return catalogue_of(worker)


def _hurts(finding: Finding, side: str) -> bool:
    return bool(finding.rule.hurts) if side == "both" else side in finding.rule.hurts


def _as_row(name: str, finding: Finding, side: str) -> dict[str, Any]:
    about = {"schema": name, "field": finding.field, "change": finding.rule.change}
    values = {"from": finding.old, "to": finding.new, "hurts": finding.rule.hurts}
    return {**about, **values, "breaking": _hurts(finding, side)}


def _as_data(catalogue: Catalogue) -> dict[str, Any]:
    entries = [
        {
            "type": entry.type,
            "version": entry.version,
            "class": entry.event.__name__,
            "handled_by": [{"handler": role.handler, "queue": role.queue} for role in entry.taken],
            "published_by": [role.handler for role in entry.published],
        }
        for entry in catalogue.entries
    ]
    raw = [{"type": key, "handler": role.handler, "queue": role.queue} for key, role in catalogue.raw]
    about = {"worker": catalogue.worker, "exchange": catalogue.exchange}
    return {**about, "events": entries, "raw": raw, "publishing_unsaid": list(catalogue.silent)}


def _names(roles: list[Role], between: str = "\n") -> str:
    return between.join(role.handler for role in roles)
