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
keys_app = typer.Typer(
    help="Keys of an ordered handler: which of them wait, for what, and what to do about it.",
    epilog="\b\nExamples:\n  holdfast keys list app:worker project\n  holdfast keys show app:worker project order-1\n"
    "  holdfast keys skip app:worker project order-1",
    no_args_is_help=True,
    rich_markup_mode=None,
)
HandlerName = Annotated[str, typer.Argument(metavar="HANDLER", help="the name of an ordered handler of the worker")]
Key = Annotated[str, typer.Argument(metavar="KEY", help="the key")]


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


@keys_app.command(name="list", short_help="keys of which events wait")
def list_keys(target: Target, handler: HandlerName, json: Json = False) -> None:
    """List the keys of which events wait: held by a dead letter, waiting for a retry, or running."""
    from .keys import run_keys

    sys.exit(run_keys(target, handler, "list", None, as_json=json))


@keys_app.command(name="show", short_help="the events that wait of one key")
def show_key(target: Target, handler: HandlerName, key: Key, json: Json = False) -> None:
    """Show the events of one key that wait, in their order."""
    from .keys import run_keys

    sys.exit(run_keys(target, handler, "show", key, as_json=json))


@keys_app.command(name="retry", short_help="try the first event of a key now")
def retry_key(target: Target, handler: HandlerName, key: Key, json: Json = False) -> None:
    """Try the first event of a key now, which waits for its retry. A dead letter is replayed with `dead replay`."""
    from .keys import run_keys

    sys.exit(run_keys(target, handler, "retry", key, as_json=json))


@keys_app.command(name="skip", short_help="go on without the dead letter that holds a key")
def skip_key(target: Target, handler: HandlerName, key: Key, json: Json = False) -> None:
    """Let a key go on without the dead letter that holds it. The letter stays in its queue."""
    from .keys import run_keys

    sys.exit(run_keys(target, handler, "skip", key, as_json=json))
