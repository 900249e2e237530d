"""The commands of `holdfast sagas`, their arguments and their help."""

from typing import Annotated

import typer

from .arguments import Json, Target

sagas_app = typer.Typer(
    help="Sagas: where each stands and why, and the means to move one that is stuck.",
    epilog="\b\nExamples:\n  holdfast sagas list fulfilment --stage stuck\n  holdfast sagas show fulfilment o-42\n"
    "  holdfast sagas diagram app:worker\n  holdfast sagas nudge app:worker fulfilment o-42 --why 'the bank was down'",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Name = Annotated[str, typer.Argument(metavar="SAGA", help="its name, or its queue")]
Key = Annotated[str, typer.Argument(metavar="KEY", help="which one: an order's id, for instance")]
Why = Annotated[str, typer.Option(metavar="TEXT", help="why; it is written with the step")]


@sagas_app.command(name="list", short_help="the sagas that have not ended, the oldest first")
def list_(
    saga: Name,
    stage: Annotated[str | None, typer.Option(metavar="STAGE", help="those in this stage alone, also an end")] = None,
    older: Annotated[str | None, typer.Option(metavar="TIME", help="not moved for this long: 90s, 15m, 1h, 3d")] = None,
    limit: Annotated[int, typer.Option(min=1, help="at most so many")] = 100,
    json: Json = False,
) -> None:
    """List the sagas at HOLDFAST_SQL__URL that have not ended."""
    from .sagas import list_sagas

    list_sagas(saga, stage=stage, older=older, limit=limit, as_json=json)


@sagas_app.command(short_help="where a saga stands, and every step that led there")
def show(saga: Name, key: Key, json: Json = False) -> None:
    """Show one saga at HOLDFAST_SQL__URL: its stage, its limit, its steps with event ids, what is to be undone."""
    from .sagas import show_saga

    show_saga(saga, key, as_json=json)


@sagas_app.command(short_help="the stages and transitions, as a Mermaid diagram")
def diagram(
    target: Target,
    saga: Annotated[str | None, typer.Option(metavar="SAGA", help="this one alone")] = None,
) -> None:
    """Print the state diagram of a worker's sagas. Connects to nothing."""
    from .sagas import print_diagrams

    print_diagrams(target, saga)


@sagas_app.command(short_help="publish the undo that is awaited again")
def nudge(target: Target, saga: Name, key: Key, why: Why) -> None:
    """Publish the undo that a saga awaits again, under the same event id, so that it is handled again. Its limit
    begins anew."""
    from .sagas import nudge_saga

    nudge_saga(target, saga, key, why)


@sagas_app.command(short_help="take the undo that is awaited for done")
def skip_undo(target: Target, saga: Name, key: Key, why: Why) -> None:
    """Take the undo that a saga awaits for done, and go on with the next."""
    from .sagas import skip_undo

    skip_undo(target, saga, key, why)


@sagas_app.command(short_help="move a saga to another stage")
def move(
    target: Target,
    saga: Name,
    to: Annotated[str, typer.Option(metavar="STAGE", help="where to")],
    why: Why,
    key: Annotated[str | None, typer.Argument(metavar="KEY", help="which one; or --from")] = None,
    from_: Annotated[str | None, typer.Option("--from", metavar="STAGE", help="all that rest in this stage")] = None,
) -> None:
    """Move one saga, or all that rest in a stage, to another stage, whose limit begins. No method is called and nothing
    is published."""
    from .sagas import move_sagas

    move_sagas(target, saga, key, of_stage=from_, to=to, why=why)
