"""Holdfast beside its peers, on the same servers and the same work, interleaved. `make bench` runs all of it.

    python benchmarks/run.py [SCENARIO]... [--quick] [--runs N] [--json FILE]

Each figure comes from a process of its own, pinned to one core; servers that the run starts are pinned to another where
there are two. All asyncio contenders run on the same event loop. Prints medians, and how many times faster Holdfast is:
messages a second, milliseconds of CPU for 1000 messages, peak memory. A run in which a message was lost or handled
twice, or after which a queue holds other than it should, ends the program; what was measured before is in the file.
"""

import argparse
import asyncio
import importlib.metadata
import importlib.util
import json
import platform
import statistics
import uuid
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiormq
from once import CORES, Figures, kept_to, run_once
from rich.console import Console
from rich.table import Table
from scenarios import SCENARIOS, Scenario

from holdfast.testing.servers import rabbitmq_server, redis_server

QUANTILES = {"p50": 0.5, "p99": 0.99, "p999": 0.999}
LIBRARIES = (
    "holdfast", "aio-pika", "aiormq", "celery", "dramatiq", "faststream", "pydantic", "taskiq", "taskiq-aio-pika",
    "uvloop",
)  # fmt: skip


def measure(scenario: Scenario, runs: int, share: float, **places: str) -> dict[str, Figures]:
    """Medians of each contender over interleaved runs; latencies are those of all runs together."""
    found: dict[str, list[Figures]] = {name: [] for name in scenario.counts}
    for _ in range(runs if scenario.repeated else 1):
        for contender, count in scenario.counts.items():
            queue, messages = f"bench-{uuid.uuid4().hex[:10]}", max(10, int(count * share))
            job = replace(scenario.job, **places, queue=queue, count=messages)
            found[contender].append(run_once(scenario.name, contender, job))
    return {name: middle(taken) for name, taken in found.items()}


def middle(runs: list[Figures]) -> Figures:
    rates = [run["count"] / run["seconds"] for run in runs]
    figures: Figures = {key: statistics.median(run[key] for run in runs) for key in ("count", "seconds", "cpu", "peak")}
    figures |= {"runs": len(runs), "slowest": min(rates), "fastest": max(rates)}
    if latencies := sorted(latency for run in runs for latency in run["latencies"]):
        figures |= {name: latencies[int(len(latencies) * share)] for name, share in QUANTILES.items()}
        figures["samples"] = len(latencies)
    return figures


def show(console: Console, scenario: Scenario, found: dict[str, Figures]) -> None:
    table = Table(title=f"{scenario.name}: {scenario.title}", title_justify="left")
    titles = ["messages/s", "of runs", "Holdfast is", "CPU ms/1000", "peak MB"]
    for title in ("", *titles, *(["p50 ms", "p99 ms", "p99.9 ms"] * (scenario.job.rate > 0))):
        table.add_column(title, justify="left" if not title else "right")
    ours = found["holdfast"]["count"] / found["holdfast"]["seconds"] if "holdfast" in found else 0.0
    for name, figures in found.items():
        rate = figures["count"] / figures["seconds"]
        cells = [
            name,
            f"{rate:,.0f}",
            f"{figures['slowest']:,.0f} - {figures['fastest']:,.0f}",
            f"{ours / rate:.1f}x",
            f"{figures['cpu'] / figures['count'] * 1e6:.0f}",
            f"{figures['peak']:.0f}",
        ]
        cells += [f"{figures[key] * 1000:.2f}" for key in QUANTILES if key in figures]
        table.add_row(*cells)
    console.print(table)


async def broker_version(rabbitmq: str) -> str:
    connection = await aiormq.connect(rabbitmq)
    properties = connection.server_properties
    await connection.close()
    return f"{properties['product']} {properties['version']}"


def circumstances(loop: str, rabbitmq: str) -> dict[str, Any]:
    """Where and with what the figures were taken."""
    installed = {found.metadata["Name"].lower(): found.version for found in importlib.metadata.distributions()}
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "taken": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{len(CORES)} cores of {models[0].partition(':')[2].strip() if models else platform.machine()}",
        "python": platform.python_version(),
        "loop": loop,
        "broker": asyncio.run(broker_version(rabbitmq)),
        "libraries": {name: installed[name] for name in LIBRARIES if name in installed},
    }


def chosen(arguments: argparse.Namespace) -> list[Scenario]:
    """The scenarios that were asked for, with the contenders that were."""
    for name in arguments.scenarios:
        if name not in SCENARIOS:
            raise SystemExit(f"no scenario {name!r}; there are {', '.join(SCENARIOS)}")
    found = [SCENARIOS[name] for name in arguments.scenarios or SCENARIOS]
    only, without = arguments.only.split(",") if arguments.only else (), arguments.without.split(",")

    def measured(who: str) -> bool:
        return (not only or who in only) and who not in without

    kept = [{who: count for who, count in scenario.counts.items() if measured(who)} for scenario in found]
    return [replace(scenario, counts=counts) for scenario, counts in zip(found, kept, strict=True) if counts]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenarios", nargs="*", help=f"of: {', '.join(SCENARIOS)}")
    parser.add_argument("--only", default="", help="contenders, separated by commas")
    parser.add_argument("--without", default="", help="contenders to leave out, separated by commas")
    parser.add_argument("--loop", choices=("uvloop", "asyncio"), help="for all; uvloop where it is installed")
    parser.add_argument("--quick", action="store_true", help="one run of a tenth of the messages")
    parser.add_argument("--smallest", action="store_true", help="one run of next to no messages, to see that it works")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write all figures here, after each scenario")
    arguments = parser.parse_args()
    share, runs = (0.002, 1) if arguments.smallest else (0.1, 1) if arguments.quick else (1.0, arguments.runs)
    loop = arguments.loop or ("uvloop" if importlib.util.find_spec("uvloop") else "asyncio")
    console, scenarios = Console(width=120), chosen(arguments)
    with kept_to(CORES[:1]), rabbitmq_server() as rabbitmq, redis_server() as redis, kept_to(CORES):
        told: dict[str, Any] = {"runs": runs, "circumstances": circumstances(loop, rabbitmq.url), "scenarios": {}}
        for scenario in scenarios:
            places = {"rabbitmq": rabbitmq.url, "redis": redis.url if scenario.job.idempotent else "", "loop": loop}
            told["scenarios"][scenario.name] = found = measure(scenario, runs, share, **places)
            show(console, scenario, found)
            if arguments.json:
                arguments.json.write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    main()
