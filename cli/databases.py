"""The commands of `holdfast sql`, `holdfast outbox` and `holdfast relay`, their arguments and their help."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .arguments import Json

sql_app = typer.Typer(
    help="Holdfast's tables in your database: print their statements, check them.",
    epilog="\b\nExamples:\n  holdfast sql schema | psql\n  holdfast sql check",
    no_args_is_help=True,
    rich_markup_mode=None,
)
outbox_app = typer.Typer(
    help="Committed events that wait to be sent: how many, which are held, and why.",
    epilog="\b\nExamples:\n  holdfast outbox show\n  holdfast outbox held\n  holdfast outbox release 4711",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Number = Annotated[int, typer.Argument(metavar="NUMBER", help="the event's, as `outbox held` lists it")]


class Dialect(StrEnum):
    """A database's language."""

    POSTGRESQL = "postgresql"
    MYSQL = "mysql"
    SQLITE = "sqlite"


@sql_app.command(short_help="print the statements that make the tables")
def schema(
    dialect: Annotated[Dialect | None, typer.Option(help="instead of the one of HOLDFAST_SQL__URL")] = None,
    apply: Annotated[bool, typer.Option("--apply", help="execute them at HOLDFAST_SQL__URL as well")] = False,
    journal: Annotated[
        bool, typer.Option("--journal", help="only what tables made without HOLDFAST_SQL__KEEP lack to keep events")
    ] = False,
) -> None:
    """Print the statements that make Holdfast's tables. Connects to nothing, unless they are to be applied."""
    from .sql import print_schema

    print_schema(dialect and dialect.value, apply=apply, journal=journal)


@sql_app.command(short_help="compare the database's tables with what is needed")
def check() -> None:
    """Compare the tables at HOLDFAST_SQL__URL with what this release needs. Exit 0, or 1 and a line for each fault."""
    from .sql import check_schema

    check_schema()


@outbox_app.command(short_help="how many events wait, for how long, and who sends them")
def show(json: Json = False) -> None:
    """Show how many committed events wait to be sent, how long the oldest has waited, and the relays that are alive."""
    from .outbox import show_outbox

    show_outbox(as_json=json)


@outbox_app.command(short_help="events that the broker refused, each of which holds its key")
def held(json: Json = False) -> None:
    """List the events that the broker refused. The later events of their keys wait for them."""
    from .outbox import list_held

    list_held(as_json=json)


@outbox_app.command(short_help="try a held event again now")
def release(number: Number) -> None:
    """Let a held event be tried again now, instead of at the end of its pause."""
    from .outbox import release_held

    release_held(number)


@outbox_app.command(short_help="give a held event up, after archiving it")
def drop(
    number: Number,
    archive: Annotated[Path, typer.Option(metavar="FILE", help="a file that the event is added to, as a line of JSON")],
) -> None:
    """Write a held event to a file, then delete it. The later events of its key go on."""
    from .outbox import drop_held

    drop_held(number, archive)


def relay() -> None:
    """Send what is committed at HOLDFAST_SQL__URL until SIGTERM. Any number of relays share the work; a worker has one
    for the databases of its handlers."""
    from .relay import run_relay

    sys.exit(run_relay())
