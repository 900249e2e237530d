"""`holdfast events`: the contract of a worker, shown, written and checked. Nothing is connected to."""

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ..contracts import Catalogue, Finding, Role, asyncapi, catalogue_of, check, page, read_schemas, write_schemas
from .load import load_worker
from .topology import Json, Target

events_app = typer.Typer(
    help="Events as a contract: show, write as files, check for breaking changes.",
    epilog="\b\nExamples:\n  holdfast events show app:worker\n  holdfast events schema app:worker --to contract\n"
    "  holdfast events check app:worker --against contract\n  holdfast events docs app:worker --to site",
    no_args_is_help=True,
    rich_markup_mode=None,
)


class For(StrEnum):
    """Whom a change must not hurt."""

    BOTH = "both"
    PRODUCERS = "producers"
    CONSUMERS = "consumers"


@events_app.command(short_help="types, versions, who handles and who publishes them")
def show(target: Target, json_: Json = False) -> None:
    """List every type and version, with the handlers that take it, their queues, and the handlers that publish it."""
    catalogue = _catalogue(target)
    if json_:
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


@events_app.command(short_help="write a JSON Schema file for each type and version")
def schema(
    target: Target,
    to: Annotated[Path, typer.Option(metavar="DIR", help="the folder; keep it under version control")],
) -> None:
    """Write JSON Schema, one file for each type and version. The same contract gives the same bytes."""
    for path in write_schemas(_catalogue(target), to):
        print(path)


@events_app.command(name="check", short_help="fail on a change that breaks somebody")
def check_(
    target: Target,
    against: Annotated[Path, typer.Option(metavar="DIR", help="what `events schema` wrote before the change")],
    for_: Annotated[For, typer.Option("--for", help="whom a change must not hurt")] = For.BOTH,
    json_: Json = False,
) -> None:
    """Compare with earlier schemas. Exit 1 where a change hurts producers of the old form (the new program cannot read
    what they send) or consumers of it (they cannot read what the new program sends)."""
    changes = check(_catalogue(target), read_schemas(against))
    breaking = [one for found in changes.values() for one in found if _hurts(one, for_)]
    if json_:
        told = [_told(name, one, for_) for name, found in changes.items() for one in found]
        print(json.dumps(told, indent=2))
    else:
        for name, found in changes.items():
            for one in found:
                whom = f" (hurts {' and '.join(one.rule.hurts)})" if one.rule.hurts else ""
                print(f"{'breaks' if _hurts(one, for_) else 'fine  '}  {name.removesuffix('.json')}: {one}{whom}")
        print(f"{len(breaking)} breaking" if breaking else "compatible")
    sys.exit(1 if breaking else 0)


@events_app.command(short_help="write AsyncAPI 3 and a page to read")
def docs(
    target: Target,
    to: Annotated[Path, typer.Option(metavar="DIR", help="the folder")],
    version: Annotated[str, typer.Option(help="the version of your application, for the document")] = "1.0.0",
) -> None:
    """Write `asyncapi.json` (AsyncAPI 3.0) and `index.html`."""
    catalogue = _catalogue(target)
    to.mkdir(parents=True, exist_ok=True)
    document = json.dumps(asyncapi(catalogue, version=version), indent=2, ensure_ascii=False)
    for name, text in (("asyncapi.json", document + "\n"), ("index.html", page(catalogue))):
        (to / name).write_text(text)
        print(to / name)


def _catalogue(target: str) -> Catalogue:
    worker = load_worker(target)
    for spec in worker.selected():
        spec.prepare({})
    return catalogue_of(worker)


def _hurts(finding: Finding, side: For) -> bool:
    return bool(finding.rule.hurts) if side is For.BOTH else side.value in finding.rule.hurts


def _told(name: str, finding: Finding, side: For) -> dict[str, Any]:
    about = {"schema": name, "field": finding.field, "change": finding.rule.change}
    seen = {"from": finding.old, "to": finding.new, "hurts": finding.rule.hurts}
    return {**about, **seen, "breaking": _hurts(finding, side)}


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
