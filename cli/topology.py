"""`holdfast topology`: what a worker needs on the broker, how the broker differs from it, and making it match."""

import asyncio
from dataclasses import asdict
from typing import Any

from ..broker import Difference, Management, ManagementUnavailable, Topology, binding_differences, described
from ..config import LogSettings
from ..consumer import Worker
from ..telemetry import configure_logging
from .load import load_worker
from .reach import check_reach
from .words import console, print_json


def show(target: str, *, as_json: bool) -> None:
    """Print the topology of a worker."""
    topology = load_worker(target).topology()
    if as_json:
        print_json(asdict(topology))
        return
    out = console()
    for exchange in topology.exchanges:
        out.print(f"exchange {exchange.name} ({exchange.kind}){_arguments(exchange.arguments)}", soft_wrap=True)
    for queue in topology.queues:
        out.print(f"queue {queue.name}{_arguments(queue.arguments)}", soft_wrap=True)
    for binding in topology.bindings:
        out.print(described(binding), soft_wrap=True)


def diff(target: str, *, as_json: bool) -> int:
    """Print how the broker differs from what a worker needs. Returns the exit code."""
    return asyncio.run(_diff(_on_a_broker(target), as_json=as_json))


def apply(target: str, *, as_json: bool) -> None:
    """Declare what a worker needs, and print how much that is."""
    from ..broker.amqp import apply_topology

    worker = _on_a_broker(target)
    topology = worker.topology()
    asyncio.run(apply_topology(worker.settings.broker, topology))
    counts = {part: len(objects) for part, objects in asdict(topology).items()}
    if as_json:
        print_json({"applied": counts})
    else:
        console().print("there: " + ", ".join(f"{count} {part}" for part, count in counts.items()))


async def _diff(worker: Worker, *, as_json: bool) -> int:
    from ..broker.amqp import compare_topology

    topology, broker = worker.topology(), worker.settings.broker
    seen = await compare_topology(broker, topology)
    differences = [*seen.differences, *await _bindings(worker, topology, seen.differences)]
    differing = [difference for difference in differences if difference.kind != "unread"]
    if as_json:
        print_json({"broker": seen.version, "differences": [asdict(difference) for difference in differences]})
    else:
        for difference in differences:
            console().print(f"{difference.kind}: {difference.message}", soft_wrap=True)
        console().print(f"{len(differing)} difference(s) on {seen.product} {seen.version}")
    return 1 if differing else 0


async def _bindings(worker: Worker, topology: Topology, differences: tuple[Difference, ...]) -> list[Difference]:
    missing = {difference.object for difference in differences if difference.kind == "missing"}
    try:
        return binding_differences(topology, await Management(worker.settings.broker).bindings(), missing)
    except ManagementUnavailable as error:
        words = f"bindings are not compared, AMQP does not list them: {error}; see HOLDFAST_BROKER__MANAGEMENT_URL"
        return [Difference("unread", "bindings", words)]


def _on_a_broker(target: str) -> Worker:
    worker = load_worker(target)
    configure_logging(LogSettings(level="CRITICAL"))  # libraries have words of their own for what is raised
    check_reach(worker.settings.broker)
    return worker


def _arguments(arguments: Any) -> str:
    return " " + ", ".join(f"{name}={value}" for name, value in arguments.items()) if arguments else ""
