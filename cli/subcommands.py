"""The commands of `holdfast topology` and `holdfast events`, their arguments and their help."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .arguments import Json, Target

topology_app = typer.Typer(
    help="Exchanges, queues and bindings: what is needed, what differs, make it so.",
    epilog="\b\nExamples:\n  holdfast topology show app:worker\n  holdfast topology diff app:worker\n"
    "  holdfast topology apply app:worker",
    no_args_is_help=True,
    rich_markup_mode=None,
)
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


@topology_app.command(
    name="show", short_help="what the worker needs", epilog="\b\nExample:\n  holdfast topology show app:worker --json"
)
def show_topology(target: Target, json: Json = False) -> None:
    """Show every exchange, queue and binding that the worker declares. Connects to nothing."""
    from .topology import show

    show(target, as_json=json)


@topology_app.command(
    short_help="how the broker differs from it", epilog="\b\nExample:\n  holdfast topology diff app:worker"
)
def diff(target: Target, json: Json = False) -> None:
    """Compare the broker with what the worker needs; nothing is changed. Exit 0 where nothing differs, else 1."""
    from .topology import diff

    sys.exit(diff(target, as_json=json))


@topology_app.command(short_help="create what is missing", epilog="\b\nExample:\n  holdfast topology apply app:worker")
def apply(target: Target, json: Json = False) -> None:
    """Declare what the worker needs, as its start does. Nothing is deleted; what exists with other arguments is named,
    with exit 1."""
    from .topology import apply

    apply(target, as_json=json)


@events_app.command(name="show", short_help="types, versions, who handles and who publishes them")
def show_events(target: Target, json: Json = False) -> None:
    """List every type and version, with the handlers that take it, their queues, and the handlers that publish it."""
    from .events import show

    show(target, as_json=json)


@events_app.command(short_help="write a JSON Schema file for each type and version")
def schema(
    target: Target,
    to: Annotated[Path, typer.Option(metavar="DIR", help="the folder; keep it under version control")],
) -> None:
    """Write JSON Schema, one file for each type and version. The same contract gives the same bytes."""
    from .events import write_schema_files

    write_schema_files(target, to)


@events_app.command(short_help="fail on a change that breaks somebody")
def check(
    target: Target,
    against: Annotated[Path, typer.Option(metavar="DIR", help="what `events schema` wrote before the change")],
    for_: Annotated[For, typer.Option("--for", help="whom a change must not hurt")] = For.BOTH,
    json: Json = False,
) -> None:
    """Compare with earlier schemas. Exit 1 where a change hurts producers of the old form (the new program cannot read
    what they send) or consumers of it (they cannot read what the new program sends)."""
    from .events import check_against

    sys.exit(check_against(target, against, side=for_.value, as_json=json))


@events_app.command(short_help="write AsyncAPI 3 and a page to read")
def docs(
    target: Target,
    to: Annotated[Path, typer.Option(metavar="DIR", help="the folder")],
    version: Annotated[str, typer.Option(help="the version of your application, for the document")] = "1.0.0",
) -> None:
    """Write `asyncapi.json` (AsyncAPI 3.0) and `index.html`."""
    from .events import write_docs

    write_docs(target, to, version=version)
