"""`holdfast topology`: what a worker needs on the broker, how the broker differs from it, and making it match."""

import asyncio
import sys
from dataclasses import asdict
from typing import Annotated, Any

import typer

from ..broker import Difference, Management, ManagementUnavailable, Topology, apply_topology, look
from ..config import LogSettings
from ..consumer import Worker
from ..events import ConfigurationError
from ..telemetry import configure_logging
from .compare import binding_differences, told
from .load import load_worker
from .words import console, print_json

topology_app = typer.Typer(
    help="Exchanges, queues and bindings: what is needed, what differs, make it so.",
    epilog="\b\nExamples:\n  holdfast topology show app:worker\n  holdfast topology diff app:worker\n"
    "  holdfast topology apply app:worker",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Target = Annotated[str, typer.Argument(metavar="MODULE:WORKER", help="where the worker is, for instance app:worker")]
Json = Annotated[bool, typer.Option("--json", help="for programs")]


@topology_app.command(
    short_help="what the worker needs", epilog="\b\nExample:\n  holdfast topology show app:worker --json"
)
def show(target: Target, json: Json = False) -> None:
    """Show every exchange, queue and binding that the worker declares. Connects to nothing."""
    topology = load_worker(target).topology()
    if json:
        print_json(asdict(topology))
        return
    out = console()
    for exchange in topology.exchanges:
        out.print(f"exchange {exchange.name} ({exchange.kind}){_arguments(exchange.arguments)}", soft_wrap=True)
    for queue in topology.queues:
        out.print(f"queue {queue.name}{_arguments(queue.arguments)}", soft_wrap=True)
    for binding in topology.bindings:
        out.print(told(binding), soft_wrap=True)


@topology_app.command(
    short_help="how the broker differs from it", epilog="\b\nExample:\n  holdfast topology diff app:worker"
)
def diff(target: Target, json: Json = False) -> None:
    """Compare the broker with what the worker needs; nothing is changed. Exit 0 where nothing differs, else 1."""
    worker = _on_a_broker(target)
    sys.exit(asyncio.run(_diff(worker, as_json=json)))


@topology_app.command(short_help="create what is missing", epilog="\b\nExample:\n  holdfast topology apply app:worker")
def apply(target: Target, json: Json = False) -> None:
    """Declare what the worker needs, as its start does. Nothing is deleted; what exists with other arguments is named,
    with exit 1."""
    worker = _on_a_broker(target)
    topology = worker.topology()
    asyncio.run(apply_topology(worker.settings.broker, topology))
    counts = {part: len(things) for part, things in asdict(topology).items()}
    if json:
        print_json({"applied": counts})
    else:
        console().print("there: " + ", ".join(f"{count} {part}" for part, count in counts.items()))


async def _diff(worker: Worker, *, as_json: bool) -> int:
    topology, broker = worker.topology(), worker.settings.broker
    seen = await look(broker, topology)
    differences = [*seen.differences, *await _bindings(worker, topology, seen.differences)]
    differing = [difference for difference in differences if difference.kind != "unread"]
    if as_json:
        print_json({"broker": seen.version, "differences": [asdict(difference) for difference in differences]})
    else:
        for difference in differences:
            console().print(f"{difference.kind}: {difference.told}", soft_wrap=True)
        console().print(f"{len(differing)} difference(s) on {seen.product} {seen.version}")
    return 1 if differing else 0


async def _bindings(worker: Worker, topology: Topology, differences: tuple[Difference, ...]) -> list[Difference]:
    missing = {difference.thing for difference in differences if difference.kind == "missing"}
    try:
        return binding_differences(topology, await Management(worker.settings.broker).bindings(), missing)
    except ManagementUnavailable as error:
        words = f"bindings are not compared, AMQP does not tell of them: {error}; see HOLDFAST_BROKER__MANAGEMENT_URL"
        return [Difference("unread", "bindings", words)]


def _on_a_broker(target: str) -> Worker:
    worker = load_worker(target)
    configure_logging(LogSettings(level="CRITICAL"))  # libraries have words of their own for what is raised
    if worker.settings.broker.url.get_secret_value().startswith("memory:"):
        raise ConfigurationError("HOLDFAST_BROKER__URL is memory://, inside one process: there is no broker to look at")
    return worker


def _arguments(arguments: Any) -> str:
    return " " + ", ".join(f"{name}={value}" for name, value in arguments.items()) if arguments else ""
