"""The commands of `holdfast dead`. What they share, and what takes its time to load, is in the files next to this."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options as o

if TYPE_CHECKING:
    from ...dead_letters import Pace, Selection
    from .session import Session

dead_app = typer.Typer(
    help="Dead letters: see why, decide, replay safely.",
    epilog="\b\nExamples:\n  holdfast dead list\n  holdfast dead show billing.charge\n"
    "  holdfast dead replay billing.charge --fingerprint 3f2a --dry-run",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@dead_app.command(name="list", short_help="dead-letter queues, how much is in them, since when")
@o.in_session
async def list_(
    session: "Session",
    queues: Annotated[list[str] | None, typer.Argument(metavar="QUEUE", help="these queues alone")] = None,
) -> int:
    """List the dead-letter queues that workers of this broker have registered."""
    from .tables import queues_table

    listed = await session.service.queues(queues or [])
    nothing = "no worker has told this broker of its queues; name one: holdfast dead list QUEUE"
    return session.list(listed, queues_table, nothing)


@dead_app.command(
    short_help="groups and letters of a queue, or one letter",
    epilog="\b\nExamples:\n  holdfast dead show billing.charge\n"
    "  holdfast dead show billing.charge --reason exhausted\n"
    "  holdfast dead show billing.charge 3fa9c2",
)
@o.in_session
async def show(
    session: "Session", queue: o.QueueName, selection: "Selection",
    letter: o.OneLetter = None, cached: o.Cached = False, worn: o.Worn = False,
) -> int:  # fmt: skip
    """Show a queue's letters by what they died of, and one by one; or all that is known of one letter."""
    from .tables import show_letter, show_queue

    name = await session.read(queue, cached=cached, worn=worn)
    if letter is None:
        notes = session.service.journal.notes(name)
        show_queue(name, session.service.index(name), selection, notes, as_json=session.as_json)
    else:
        show_letter(name, session.service.index(name), letter, as_json=session.as_json)
    return 0


@dead_app.command(
    short_help="give letters back to the handler they failed in",
    epilog="\b\nExamples:\n  holdfast dead replay billing.charge --dry-run\n"
    "  holdfast dead replay billing.charge --fingerprint 3f2a --rate 20\n"
    "  holdfast dead replay billing.charge --since 2h --yes",
)
@o.in_session
async def replay(
    session: "Session", queue: o.QueueName, selection: "Selection", pace: "Pace", force: o.Force = False,
    to: o.Target = None, dry_run: o.DryRun = False, yes: o.Yes = False, worn: o.Worn = False,
) -> int:  # fmt: skip
    """Replay letters to the queue they died in, as first attempts. The set is fixed at the start; success is what the
    worker reports. Ctrl-C pauses; `dead resume` goes on. Exit 0 when every outcome is known and none is a failure, or
    with --wait 0 when all are sent."""
    name = await session.read(queue, worn=worn)
    if (chosen := session.choose(name, selection, "replay", to=to, dry_run=dry_run, yes=yes)) is None:
        return 0
    return await session.carry_out(session.service.replay(name, chosen, to=to, forced=force), pace)


@dead_app.command(
    short_help="take letters away, into an archive",
    epilog="\b\nExample:\n  holdfast dead discard billing.charge --type order.created --since 1d",
)
@o.in_session
async def discard(
    session: "Session", queue: o.QueueName, selection: "Selection",
    dry_run: o.DryRun = False, yes: o.Yes = False, worn: o.Worn = False,
) -> int:  # fmt: skip
    """Discard letters. Each is on disk, in an archive that `dead import` reads, before it leaves its queue."""
    name = await session.read(queue, worn=worn)
    if (chosen := session.choose(name, selection, "discard", dry_run=dry_run, yes=yes)) is None:
        return 0
    return await session.carry_out(session.service.discard(name, chosen))


@dead_app.command(
    short_help="replay one letter with another body or other headers",
    epilog="\b\nExamples:\n  holdfast dead edit billing.charge 3fa9c2 app:worker --body fixed.json\n"
    "  holdfast dead edit billing.charge 3fa9c2 app:worker --body - --header tenant=blue < fixed.json",
)
@o.in_session
async def edit(
    session: "Session", queue: o.QueueName, letter: o.LetterId, worker: o.WorkerName,
    body: Annotated[str | None, typer.Option(metavar="FILE", help="the new body; - is standard input")] = None,
    header: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="set a header; repeatable")] = None,
    no_header: Annotated[list[str] | None, typer.Option(metavar="NAME", help="take a header away; repeatable")] = None,
    to: o.Target = None, wait: o.Wait = 60.0, yes: o.Yes = False, worn: o.Worn = False,
) -> int:  # fmt: skip
    """Replay one letter as a new event, with the old one as its cause. The body must be what the worker's handler
    takes; the original goes to an archive."""
    from ...dead_letters import Pace, Selection
    from .rehearsal import reader_of
    from .session import edit_of

    edited = edit_of(body, header or [], no_header or [])
    name = await session.read(queue, worn=worn)
    original = session.service.index(name).only(letter)
    reader_of(worker, name, to)(original, edited)
    if (chosen := session.choose(name, Selection(id=(original.key,)), "edit", to=to, yes=yes)) is None:
        return 0
    return await session.carry_out(session.service.edit_each(name, chosen, edited, to=to), Pace(wait=wait))


@dead_app.command(
    short_help="would these letters be read by today's code?",
    epilog="\b\nExample:\n  holdfast dead check billing.charge app:worker --reason unreadable",
)
@o.in_session
async def check(
    session: "Session", queue: o.QueueName, worker: o.WorkerName, selection: "Selection",
    run: o.Run = False, cached: o.Cached = False, worn: o.Worn = False,
) -> int:  # fmt: skip
    """Try letters against today's models without touching them. With --run the handler really runs, here: what it
    publishes is caught and counted, its transaction (within=) is rolled back, whatever else it does is done."""
    from .rehearsal import check_letters

    name = await session.read(queue, cached=cached, worn=worn)
    index = session.service.index(name)
    return await check_letters(name, index, selection, worker, run=run, as_json=session.as_json)


@dead_app.command(short_help="write letters to a file; they stay")
@o.in_session
async def export(
    session: "Session", queue: o.QueueName,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="newline-delimited JSON, one letter per line")],
    selection: "Selection", worn: o.Worn = False,
) -> int:  # fmt: skip
    """Export letters, exactly; they stay where they are."""
    name = await session.read(queue, worn=worn)
    count = session.service.export(name, selection, file)
    return session.say(
        {"queue": name, "exported": count, "file": str(file)},
        f"{count:,} letter(s) of {name} written to {file}; they are still in the queue",
    )


@dead_app.command(name="import", short_help="put letters of a file back")
@o.in_session
async def import_(
    session: "Session",
    file: Annotated[Path, typer.Argument(metavar="FILE", help="an archive or an export", exists=True, dir_okay=False)],
    to: Annotated[str | None, typer.Option(metavar="QUEUE", help="into this dead-letter queue")] = None,
    yes: o.Yes = False,
) -> int:
    """Put letters back into the dead-letter queues they came from. Those that are there already are left out. An
    import that was broken off goes on with `dead resume`."""
    if not yes:
        session.confirm(f"Put the letters of {file} back into their dead-letter queues?")
    begun = await session.service.restore(file, to=to)
    for number, operation in enumerate(begun):
        begun[number] = await session.work(operation)
        if begun[number].state in ("paused", "cancelled"):
            break
    return session.imported(begun)


@dead_app.command(short_help="what was begun, and how it stands")
@o.in_session
async def operations(session: "Session") -> int:
    """List replays, edits, discards and imports, the latest first."""
    from .tables import operations_table

    return session.list(session.service.operations(), operations_table, "nothing was begun on this machine")


@dead_app.command(short_help="go on with an operation")
@o.in_session
async def resume(session: "Session", operation: o.OperationName, pace: "Pace") -> int:
    """Go on with an operation that was paused, stopped or broken off, with the letters it was begun with."""
    return await session.carry_out(session.service.journal.operation(operation), pace)


@dead_app.command(short_help="have a running operation paused")
@o.in_session
async def pause(session: "Session", operation: o.OperationName) -> int:
    """Pause an operation that another process carries out; what is on its way is finished."""
    return session.ask(operation, "pause")


@dead_app.command(short_help="end an operation for good")
@o.in_session
async def cancel(session: "Session", operation: o.OperationName) -> int:
    """Cancel an operation: what it has not come to stays in its queue."""
    return session.ask(operation, "cancel")
