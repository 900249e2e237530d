"""The commands of `holdfast journal`, their arguments and their help."""

from pathlib import Path
from typing import Annotated

import typer

from ..arguments import Json, Target

journal_app = typer.Typer(
    help="Kept events: what happened, why, and what was made of it.",
    epilog="\b\nExamples:\n  holdfast journal tail --key o-42\n  holdfast journal status\n"
    "  holdfast journal why 0190b5f2-7a51-7cc0-8000-000000000000",
    no_args_is_help=True,
    rich_markup_mode=None,
)

EventId = Annotated[str, typer.Argument(metavar="EVENT", help="an event id")]
EventType = Annotated[str | None, typer.Option("--type", metavar="TYPE", help="events of this type alone")]
Key = Annotated[str | None, typer.Option("--key", metavar="KEY", help="events of this key alone")]
Since = Annotated[str | None, typer.Option(metavar="WHEN", help="written since: 15m, 2h, 3d or 2026-01-31T12:00 (UTC)")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="do not ask")]


@journal_app.command(short_help="the last events")
def tail(
    event_type: EventType = None,
    key: Key = None,
    limit: Annotated[int, typer.Option(min=1, help="the last so many")] = 20,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="print new ones as they come, until Ctrl-C")] = False,
    json: Json = False,
) -> None:
    """Print the last events with their positions, oldest first; with --json one line each, with its body."""
    from .reading import print_tail

    print_tail(event_type, key, limit, follow=follow, as_json=json)


@journal_app.command(short_help="one event: its metadata and its body")
def show(event: EventId, json: Json = False) -> None:
    """Show one event."""
    from .reading import print_event

    print_event(event, as_json=json)


@journal_app.command(short_help="the tree of an event's causes and effects")
def why(
    event: EventId,
    worker: Annotated[
        str | None, typer.Option("--worker", metavar="MODULE:WORKER", help="list the queues of its handlers too")
    ] = None,
    json: Json = False,
) -> None:
    """Print the tree of all events that have their first cause in common with this one, who published each, and how
    each listener ended: handled, dead-lettered, waiting or unknown. That is known from the inbox, claims, dead letters
    and effects; listeners are known from the bindings, by the management API, and from --worker."""
    from .reading import print_why

    print_why(event, worker, as_json=json)


@journal_app.command(short_help="how far the journal, its relays and its projections are")
def status(json: Json = False) -> None:
    """Show the last position, what waits to be sent, and how far each projection is."""
    from .reading import print_status

    print_status(as_json=json)


@journal_app.command(short_help="make a projection anew, from the first event on")
def rebuild(
    projection: Annotated[str, typer.Argument(metavar="PROJECTION", help="its name")],
    version: Annotated[int, typer.Option(min=1, help="its version")] = 1,
    yes: Yes = False,
) -> None:
    """Have a projection begin at the first event again, where it is: the worker that runs it calls its function
    `begins`, and handles all events. Nothing is published by that. To make it beside the old one, give it another
    version."""
    from .writing import rebuild_projection

    rebuild_projection(projection, version, is_sure=yes)


@journal_app.command(short_help="give the events of the past to a new listener")
def feed(
    target: Target,
    handler: Annotated[str, typer.Argument(metavar="HANDLER", help="its name")],
    since: Since = None,
    from_stream: Annotated[
        bool, typer.Option("--from-stream", help="from the stream of HOLDFAST_BROKER__STREAM, without a database")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only count what would be fed")] = False,
) -> None:
    """Bind a handler's queue, and publish the events of the past to it. Those after the binding come by themselves.
    Events in between may come both ways, with one id, and are handled once. A feed that was interrupted goes on where
    it was; from a stream it begins again, and claims drop what comes twice."""
    from .writing import feed_handler

    feed_handler(target, handler, since, dry_run=dry_run, from_stream=from_stream)


@journal_app.command(short_help="write the stream of all events into the journal")
def record(
    once: Annotated[bool, typer.Option("--once", help="end when all that is on the stream now is written")] = False,
    from_first: Annotated[
        bool, typer.Option("--from-first", help="begin with the first message that the stream has")
    ] = False,
) -> None:
    """Write the events of the stream (HOLDFAST_BROKER__STREAM) into the journal at HOLDFAST_SQL__URL, until a signal.
    Each is written once, and is not sent again. It goes on where the last one stopped. It serves metrics and probes, as
    `holdfast relay` does. With --once it serves none, and a signal before all is written is exit 1."""
    from .recording import record_stream

    raise typer.Exit(record_stream(once=once, from_first=from_first))


@journal_app.command(short_help="write events to a file, one line of JSON each")
def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="the file to be written")],
    since: Since = None,
    event_type: EventType = None,
    key: Key = None,
) -> None:
    """Write events to a file, in the order of their positions."""
    from .reading import export_events

    export_events(file, since, event_type, key)


@journal_app.command(name="import", short_help="read events from a file, which are not sent again")
def import_(file: Annotated[Path, typer.Argument(metavar="FILE", help="a file that `export` has written")]) -> None:
    """Read events into the journal at the next positions. They are not sent. Those that are there are left out, so an
    import that was interrupted can be repeated."""
    from .writing import import_events

    import_events(file)


@journal_app.command(short_help="take away the bodies of a key's events")
def erase(
    key: Annotated[str, typer.Option("--key", metavar="KEY", help="whose events")],
    yes: Yes = False,
) -> None:
    """Take away the bodies, headers and snapshots of one key, for good. The events keep positions, types and times:
    projections pass over them, and an aggregate that is made from them cannot be loaded."""
    from .writing import erase_key

    erase_key(key, is_sure=yes)
