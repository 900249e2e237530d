"""The commands of `holdfast dead`, their arguments and their help. The files next to this one carry them out."""

import inspect
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..arguments import Json

if TYPE_CHECKING:
    from ...dead_letters import Pace, Selection

dead_app = typer.Typer(
    help="Dead letters: see why, decide, replay safely.",
    epilog="\b\nExamples:\n  holdfast dead list\n  holdfast dead show billing.charge\n"
    "  holdfast dead replay billing.charge --fingerprint 3f2a --dry-run",
    no_args_is_help=True,
    rich_markup_mode=None,
)

QueueName = Annotated[
    str, typer.Argument(metavar="QUEUE", help="the handler's queue, or its dead-letter queue: billing.charge")
]
OneLetter = Annotated[str | None, typer.Argument(metavar="ID", help="a letter's id, its beginning, or an event id")]
Run = Annotated[bool, typer.Option("--run", help="also run the handler on each; what it publishes is caught")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="do not ask")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="only say which letters are meant")]
Worn = Annotated[bool, typer.Option("--worn", help="read on although the broker may drop letters read this often")]
Cached = Annotated[bool, typer.Option("--cached", help="by the last reading; the queue is not read again")]
Target = Annotated[str | None, typer.Option("--to", metavar="QUEUE", help="replay to this queue")]
Rate = Annotated[float | None, typer.Option(min=0.01, help="letters per second")]
Canary = Annotated[bool, typer.Option("--canary/--no-canary", help="1 letter, 10, the rest, while none fails again")]
Wait = Annotated[float, typer.Option(min=0, help="seconds without a word after which outcomes are not waited for")]
KeepGoing = Annotated[bool, typer.Option("--keep-going", help="do not stop when letters fail again")]
OperationName = Annotated[str, typer.Argument(metavar="OPERATION", help="its name, as `dead operations` lists it")]
WorkerName = Annotated[
    str, typer.Argument(metavar="MODULE:WORKER", help="where the worker is that takes these events, such as app:worker")
]

FILTERS: dict[str, Any] = {
    "id": Annotated[
        list[str] | None,
        typer.Option("--id", metavar="ID", help="a letter's id, its beginning, or its event id; repeatable"),
    ],
    "reason": Annotated[str | None, typer.Option(help="why it died: exhausted, unreadable, delivery-limit ...")],
    "type": Annotated[str | None, typer.Option("--type", metavar="TYPE", help="the event's type")],
    "fingerprint": Annotated[str | None, typer.Option(help="the group, or the beginning of its fingerprint")],
    "handler": Annotated[str | None, typer.Option("--handler", metavar="NAME", help="the handler it failed in")],
    "text": Annotated[str | None, typer.Option(metavar="TEXT", help="what the error says")],
    "since": Annotated[
        str | None, typer.Option(metavar="WHEN", help="died since: 15m, 2h, 3d or 2026-01-31T12:00 (UTC)")
    ],
    "until": Annotated[str | None, typer.Option(metavar="WHEN", help="died before")],
    "limit": Annotated[int | None, typer.Option(min=1, help="the first so many")],
}


def filtered(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `FILTERS`. It takes them as one value, its parameter `selection`."""

    @wraps(command)
    def with_filters(**values: Any) -> None:
        from ...dead_letters import Filters

        given = {name: values.pop(name) for name in FILTERS}
        command(selection=Filters(**given | {"id": tuple(given["id"] or ())}).selection(), **values)

    keyword = inspect.Parameter.KEYWORD_ONLY
    options = [inspect.Parameter(name, keyword, default=None, annotation=option) for name, option in FILTERS.items()]
    parameters = list[inspect.Parameter]()
    for parameter in inspect.signature(command).parameters.values():
        parameters += options if parameter.name == "selection" else [parameter.replace(kind=keyword)]
    with_filters.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_filters.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return with_filters


@dead_app.command(name="list", short_help="dead-letter queues, how much is in them, since when")
def list_(
    queues: Annotated[list[str] | None, typer.Argument(metavar="QUEUE", help="these queues alone")] = None,
    json: Json = False,
) -> None:
    """List the dead-letter queues that workers of this broker have registered."""
    from .queues import list_queues

    sys.exit(list_queues(queues or [], as_json=json))


@dead_app.command(
    short_help="groups and letters of a queue, or one letter",
    epilog="\b\nExamples:\n  holdfast dead show billing.charge\n"
    "  holdfast dead show billing.charge --reason exhausted\n"
    "  holdfast dead show billing.charge 3fa9c2",
)
@filtered
def show(
    queue: QueueName,
    selection: "Selection",
    letter: OneLetter = None,
    cached: Cached = False, worn: Worn = False, json: Json = False,
) -> None:  # fmt: skip
    """Show a queue's letters by what they died of, and one by one; or all that is known of one letter."""
    from .queues import show_letter, show_queue

    if letter is not None:
        sys.exit(show_letter(queue, letter, cached=cached, worn=worn, as_json=json))
    sys.exit(show_queue(queue, selection, cached=cached, worn=worn, as_json=json))


@dead_app.command(
    short_help="give letters back to the handler they failed in",
    epilog="\b\nExamples:\n  holdfast dead replay billing.charge --dry-run\n"
    "  holdfast dead replay billing.charge --fingerprint 3f2a --rate 20\n"
    "  holdfast dead replay billing.charge --since 2h --yes",
)
@filtered
def replay(
    queue: QueueName,
    selection: "Selection",
    rate: Rate = None, canary: Canary = True, wait: Wait = 60.0, keep_going: KeepGoing = False,
    force: Annotated[bool, typer.Option("--force", help="also events that have completed")] = False,
    to: Target = None, dry_run: DryRun = False, yes: Yes = False, worn: Worn = False, json: Json = False,
) -> None:  # fmt: skip
    """Replay letters to the queue they died in, as first attempts. The set is fixed at the start; success is what the
    worker reports. Ctrl-C pauses; `dead resume` goes on. Exit 0 when every outcome is known and none is a failure, or
    with --wait 0 when all are sent."""
    from .operations import replay_letters

    pace = _pace(rate, wait, canary=canary, keep_going=keep_going)
    sys.exit(
        replay_letters(
            queue, selection, pace, to=to, forced=force, dry_run=dry_run, yes=yes, worn=worn, as_json=json
        )
    )  # fmt: skip


@dead_app.command(
    short_help="take letters away, into an archive",
    epilog="\b\nExample:\n  holdfast dead discard billing.charge --type order.created --since 1d",
)
@filtered
def discard(
    queue: QueueName,
    selection: "Selection",
    dry_run: DryRun = False, yes: Yes = False, worn: Worn = False, json: Json = False,
) -> None:  # fmt: skip
    """Discard letters. Each is on disk, in an archive that `dead import` reads, before it leaves its queue."""
    from .operations import discard_letters

    sys.exit(discard_letters(queue, selection, dry_run=dry_run, yes=yes, worn=worn, as_json=json))


@dead_app.command(
    short_help="replay one letter with another body or other headers",
    epilog="\b\nExamples:\n  holdfast dead edit billing.charge 3fa9c2 app:worker --body fixed.json\n"
    "  holdfast dead edit billing.charge 3fa9c2 app:worker --body - --header tenant=blue < fixed.json",
)
def edit(
    queue: QueueName,
    letter: Annotated[str, typer.Argument(metavar="ID", help="the letter's id or its beginning")],
    worker: WorkerName,
    body: Annotated[str | None, typer.Option(metavar="FILE", help="the new body; - is standard input")] = None,
    header: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="set a header; repeatable")] = None,
    no_header: Annotated[list[str] | None, typer.Option(metavar="NAME", help="take a header away; repeatable")] = None,
    to: Target = None, wait: Wait = 60.0, yes: Yes = False, worn: Worn = False, json: Json = False,
) -> None:  # fmt: skip
    """Replay one letter as a new event, with the old one as its cause. The body must be what the worker's handler
    takes; the original goes to an archive."""
    from .operations import edit_letter

    headers = header or []
    sys.exit(
        edit_letter(
            queue, letter, worker, body, headers, no_header or [], to=to, wait=wait, yes=yes, worn=worn, as_json=json
        )
    )  # fmt: skip


@dead_app.command(
    short_help="would these letters be read by today's code?",
    epilog="\b\nExample:\n  holdfast dead check billing.charge app:worker --reason unreadable",
)
@filtered
def check(
    queue: QueueName, worker: WorkerName,
    selection: "Selection",
    run: Run = False,
    cached: Cached = False, worn: Worn = False, json: Json = False,
) -> None:  # fmt: skip
    """Try letters against today's models without touching them. With --run the handler really runs, here: what it
    publishes is caught and counted, whatever else it does is done."""
    from .rehearsal import check_letters

    sys.exit(check_letters(queue, selection, worker, run=run, cached=cached, worn=worn, as_json=json))


@dead_app.command(short_help="write letters to a file; they stay")
@filtered
def export(
    queue: QueueName,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="newline-delimited JSON, one letter per line")],
    selection: "Selection",
    worn: Worn = False, json: Json = False,
) -> None:  # fmt: skip
    """Export letters, exactly; they stay where they are."""
    from .queues import export_letters

    sys.exit(export_letters(queue, selection, file, worn=worn, as_json=json))


@dead_app.command(name="import", short_help="put letters of a file back")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="an archive or an export", exists=True, dir_okay=False)],
    to: Annotated[str | None, typer.Option(metavar="QUEUE", help="into this dead-letter queue")] = None,
    yes: Yes = False, json: Json = False,
) -> None:  # fmt: skip
    """Put letters back into the dead-letter queues they came from. Those that are there already are left out. An
    import that was broken off goes on with `dead resume`."""
    from .operations import import_letters

    sys.exit(import_letters(file, to=to, yes=yes, as_json=json))


@dead_app.command(short_help="what was begun, and how it stands")
def operations(json: Json = False) -> None:
    """List replays, edits, discards and imports, the latest first."""
    from .operations import list_operations

    sys.exit(list_operations(as_json=json))


@dead_app.command(short_help="go on with an operation")
def resume(
    operation: OperationName,
    rate: Rate = None, canary: Canary = True, wait: Wait = 60.0, keep_going: KeepGoing = False, json: Json = False,
) -> None:  # fmt: skip
    """Go on with an operation that was paused, stopped or broken off, with the letters it was begun with."""
    from .operations import resume_operation

    pace = _pace(rate, wait, canary=canary, keep_going=keep_going)
    sys.exit(resume_operation(operation, pace, as_json=json))


@dead_app.command(short_help="have a running operation paused")
def pause(operation: OperationName, json: Json = False) -> None:
    """Pause an operation that another process carries out; what is on its way is finished."""
    from .operations import ask_operation

    sys.exit(ask_operation(operation, "pause", as_json=json))


@dead_app.command(short_help="end an operation for good")
def cancel(operation: OperationName, json: Json = False) -> None:
    """Cancel an operation: what it has not come to stays in its queue."""
    from .operations import ask_operation

    sys.exit(ask_operation(operation, "cancel", as_json=json))


def _pace(rate: float | None, wait: float, *, canary: bool, keep_going: bool) -> "Pace":
    from ...dead_letters import Pace

    return Pace(rate=rate, canary=canary and wait > 0, wait=wait, keep_going=keep_going)
