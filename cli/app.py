"""`holdfast`: its commands, and how their errors read: one line on stderr, a non-zero exit, no traceback."""

import sys
from typing import Annotated, Any, NoReturn

import typer

from ..config import VERSION
from .arguments import Json, Target
from .databases import outbox_app, relay, sql_app
from .dead import dead_app
from .journal import journal_app
from .saga_commands import sagas_app
from .subcommands import events_app, keys_app, topology_app

app = typer.Typer(
    name="holdfast",
    epilog="\b\nExamples:\n  holdfast run app:worker\n  holdfast publish order.created '{}'\n  holdfast demo",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(dead_app, name="dead")
app.add_typer(topology_app, name="topology")
app.add_typer(events_app, name="events")
app.add_typer(keys_app, name="keys")
app.add_typer(sql_app, name="sql")
app.add_typer(outbox_app, name="outbox")
app.add_typer(sagas_app, name="sagas")
app.add_typer(journal_app, name="journal")
app.command(short_help="send the committed events of a database", epilog="\b\nExample:\n  holdfast relay")(relay)

# Typer exports this one alone of the errors that mean wrong usage; they have their base in common.
_WrongUsage: Any = typer.BadParameter.__bases__[0]


def main() -> None:
    """The console script. Exits 0, or 1 after one line on stderr that says what is wrong; 2 for wrong usage."""
    if sys.platform == "win32":
        sys.exit("holdfast: Holdfast runs on Linux and macOS; on Windows, run it in WSL or in a container")
    try:
        code = app(sys.argv[1:] or ["--help"], prog_name="holdfast", standalone_mode=False)
    except _WrongUsage as error:
        command = error.ctx.command_path if error.ctx else "holdfast"
        _fail(f"{error.format_message()} (see {command} --help)", code=2)
    except typer.Abort:
        _fail("nothing was done")
    except Exception as error:
        from .failure import lines_of  # loaded only now, as it needs more of Holdfast than `--version` does

        if (lines := lines_of(error)) is None:
            raise
        _fail(*lines)
    sys.exit(code)


def _fail(*lines: str, code: int = 1) -> NoReturn:
    from ..telemetry import neutral

    for line in lines:
        print(f"holdfast: {neutral(line)}", file=sys.stderr)
    sys.exit(code)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"holdfast {VERSION}")
        raise typer.Exit


@app.callback()
def holdfast(
    version: Annotated[
        bool, typer.Option("--version", help="say which version this is", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """A RabbitMQ worker toolkit that holds fast to every message until its outcome is safe."""


@app.command(
    short_help="run a worker until SIGTERM",
    epilog="\b\nExamples:\n  holdfast run app:worker\n  holdfast run app:worker --concurrency 8 --only charge\n"
    "  holdfast run app:worker --processes 4\n  holdfast run app:worker --reload",
)
def run(
    target: Target,
    processes: Annotated[
        int | None, typer.Option(min=1, max=1024, help="worker processes, kept running and served as one")
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="handlers running at once in a process; overrides the setting")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="HANDLER", help="run this handler alone; may be repeated")
    ] = None,
    reload: Annotated[
        bool, typer.Option("--reload", help="start again when a Python file changes (development)")
    ] = False,
) -> None:
    """Run a worker until SIGTERM: it drains and exits 0. A second SIGTERM ends it at once, with exit 1."""
    from .init import step_aside

    step_aside()
    if reload:
        from .reload import run_reloading

        run_reloading()
    if processes is not None and processes > 1:
        from .processes import run_processes

        sys.exit(run_processes(target, processes=processes, concurrency=concurrency, only=tuple(only or ())))
    from .run import run_worker

    sys.exit(run_worker(target, concurrency=concurrency, only=tuple(only or ())))


@app.command(
    short_help="check settings, handlers and topology",
    epilog="\b\nExamples:\n  holdfast check app:worker --all\n  holdfast check app:worker --connect",
)
def check(
    target: Target,
    connect: Annotated[
        bool, typer.Option("--connect", help="also reach the servers, and compare the topology with the broker's")
    ] = False,
    every: Annotated[bool, typer.Option("--all", help="print the settings too that have their defaults")] = False,
) -> None:
    """Check settings, handlers and topology; without --connect, nothing is connected to. Exit 0, or 1 where the worker
    would not start."""
    from .check import check_worker

    check_worker(target, connect=connect, every=every)


@app.command(
    short_help="what of broker, Redis and worker is unsafe",
    epilog="\b\nExamples:\n  holdfast doctor\n  holdfast doctor app:worker\n  holdfast doctor app:worker --json",
)
def doctor(
    target: Annotated[
        str | None, typer.Argument(metavar="[MODULE:WORKER]", help="also look at this worker's queues and handlers")
    ] = None,
    json: Json = False,
) -> None:
    """Look at broker and Redis and say what is unsafe, and how to fix it; nothing is changed. Exit 1 where an error
    was found, 0 where there are but warnings and notes."""
    from .diagnose import diagnose

    sys.exit(diagnose(target, as_json=json))


@app.command(
    short_help="publish one event, or one per line of standard input",
    epilog='\b\nExamples:\n  holdfast publish order.created \'{"order_id": "o-1"}\' --delay 5\n'
    "  holdfast publish order.created '{}' --header tenant=blue\n  holdfast publish order.created - < orders.ndjson",
)
def publish(
    event_type: Annotated[str, typer.Argument(metavar="TYPE", help="the event's type, for instance order.created")],
    body: Annotated[str, typer.Argument(metavar="JSON", help="the body, or - for one JSON text per line of stdin")],
    header: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="a header, event-id for instance")
    ] = None,
    delay: Annotated[float | None, typer.Option(metavar="SECONDS", help="publish after this long")] = None,
) -> None:
    """Publish events, confirmed, and print their ids. Lines that are no JSON are named; the others are published."""
    from .publish import publish_events

    sys.exit(publish_events(event_type, body, headers=header or [], delay=delay))


@app.command(
    short_help="what has become of a followed request",
    epilog="\b\nExamples:\n  holdfast follow 0193f1c0-5a3e-7c11-a0f2-6f1d1f0a7c55\n"
    "  holdfast follow 0193f1c0-5a3e-7c11-a0f2-6f1d1f0a7c55 --within 0 --json\n  holdfast follow --forget mail.confirm",
)
def follow(
    request: Annotated[
        str | None, typer.Argument(metavar="[REQUEST]", help="the correlation id of what was published")
    ] = None,
    within: Annotated[
        float | None, typer.Option(min=0, metavar="SECONDS", help="the longest to wait; by default until it is done")
    ] = None,
    forget: Annotated[
        str | None,
        typer.Option(metavar="QUEUE", help="wait for this queue no more: REQUEST, or requests from now on"),
    ] = None,
    json: Json = False,
) -> None:
    """Print the events of a request that is published with `follow=True`, each below its cause and again when it
    changes, until it is done or has failed. Exit 0 where it is done, else 1."""
    from .follow import run_follow

    sys.exit(run_follow(request, forget=forget, within=within, as_json=json))


@app.command(
    short_help="a small order system, broken on purpose",
    epilog="\b\nExamples:\n  holdfast demo\n  holdfast demo --memory",
)
def demo(
    memory: Annotated[bool, typer.Option("--memory", help="on the in-process broker: needs no server")] = False,
    postgres: Annotated[
        bool, typer.Option("--postgres", help="the orders of its saga in PostgreSQL instead of SQLite")
    ] = False,
) -> None:
    """Run a small order system, break it on the way, and account for every event. Exit 0 if none is missing."""
    from .demo import run_demo

    sys.exit(run_demo(memory=memory, postgres=postgres))


@app.command(
    short_help="the dead letters in a browser",
    epilog="\b\nExamples:\n  holdfast dashboard\n  holdfast dashboard --operator --worker app:worker",
)
def dashboard(
    operator: Annotated[
        bool, typer.Option("--operator", help="replay, edit and discard as well, where no token is set")
    ] = False,
    worker: Annotated[
        str | None, typer.Option(metavar="MODULE:WORKER", help="whose models letters are checked against")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65_535, help="instead of HOLDFAST_DASHBOARD__PORT; 0: any free one"),
    ] = None,
) -> None:
    """Serve the dead-letter page, on this machine alone unless a token is set. Without --operator it only shows."""
    from .dashboard import run_dashboard

    sys.exit(run_dashboard(operator=operator, worker=worker, port=port))
