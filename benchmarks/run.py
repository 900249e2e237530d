"""Holdfast beside its peers, on the same servers and the same work, interleaved. `make bench` runs all of it.

    python benchmarks/run.py [SCENARIO]... [--quick] [--runs N] [--json FILE]

Each figure comes from a process of its own, pinned to one core, and the broker to another where there are two. Prints
medians, and ratios against Holdfast: messages a second, milliseconds of CPU for 1000 messages, peak memory. A run in
which a message was lost or handled twice, or after which its queue is not empty, ends the program.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import aiormq
from rich.console import Console
from rich.table import Table
from scenarios import SCENARIOS, Scenario
from work import Job, an_order

from holdfast.testing.servers import rabbitmq_server, redis_server

HERE = Path(__file__).parent
OWN_QUEUES = {"taskiq", "dramatiq", "celery"}  # they publish for themselves, in their own format
CORES = sorted(os.sched_getaffinity(0))
Figures = dict[str, float]


@contextmanager
def servers() -> Iterator[tuple[str, str]]:
    """Addresses of RabbitMQ and Redis, given or started; those that were started are kept to the first core."""
    with ExitStack() as stack:
        before = server_processes()
        rabbitmq = stack.enter_context(rabbitmq_server())
        redis = stack.enter_context(redis_server())
        for process in server_processes() - before if len(CORES) > 1 else ():
            command = ["taskset", "-a", "-c", "-p", str(CORES[0]), process]
            subprocess.run(command, check=True, capture_output=True)
        yield rabbitmq.url, redis.url


def server_processes() -> set[str]:
    names = {"beam.smp", "redis-server"}
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended meanwhile
            if (folder / "comm").read_text().strip() in names:
                found.add(folder.name)
    return found


async def prepare(job: Job, contender: str, size: int) -> None:
    """The exchange and the queues of one run, with its messages in them."""
    connection = await aiormq.connect(job.rabbitmq)
    channel = await connection.channel(publisher_confirms=True)
    await channel.exchange_declare(job.queue, exchange_type="topic", durable=True)
    for queue, key in ((job.queue, "order"), (f"{job.queue}.ship", "shipped")):
        if contender != "holdfast" or key == "shipped":  # its own queue Holdfast has declared
            await channel.queue_declare(queue, durable=True, arguments={"x-queue-type": job.queue_type})
            await channel.queue_bind(queue, job.queue, key)
    if job.role == "consume" and not job.rate and contender not in OWN_QUEUES:
        properties = aiormq.spec.Basic.Properties(
            delivery_mode=2, content_type="application/json", message_type="order"
        )
        numbers = iter(range(job.count))

        async def one_by_one() -> None:
            for number in numbers:
                body = json.dumps(an_order(number, size=size)).encode()
                mine = aiormq.spec.Basic.Properties(**(dict(properties) | {"message_id": f"m-{number}"}))
                await channel.basic_publish(body, exchange=job.queue, routing_key="order", properties=mine)

        await asyncio.gather(*(one_by_one() for _ in range(300)))
    await connection.close()


async def drop(job: Job) -> int:
    """Delete what the run made. Returns how many messages its queue still held."""
    connection = await aiormq.connect(job.rabbitmq)
    left = 0
    suffixes = ["", ".dead", ".ship", ".ship.dead", ".taskiq", ".dramatiq", ".dramatiq.DQ", ".dramatiq.XQ", ".celery"]
    suffixes += [f".handle{n}{dead}" for n in range(1, job.handlers) for dead in ("", ".dead")]
    for suffix in suffixes:
        channel = await connection.channel()
        try:
            declared = await channel.queue_declare(job.queue + suffix, passive=True)
        except aiormq.exceptions.ChannelNotFoundEntity:
            continue
        if job.role == "consume" and not suffix.endswith((".ship", ".dead")):
            left += declared.message_count or 0
        await channel.queue_delete(job.queue + suffix)
    channel = await connection.channel()
    await channel.exchange_delete(job.queue)
    await connection.close()
    return left


def run_once(scenario: Scenario, contender: str, job: Job) -> Figures:
    """One process, its figures."""
    if contender == "holdfast":
        asyncio.run(declare_holdfast(job))
    asyncio.run(prepare(job, contender, job.size))
    if contender == "c":
        host, port = job.rabbitmq.partition("@")[2].rstrip("/").split(":")
        last = job.prefetch if job.role == "consume" else job.in_flight
        command = [str(client()), job.role, host, port, job.queue, str(job.count), str(last)]
    else:
        command = [sys.executable, str(HERE / "contenders" / f"{contender}_.py"), json.dumps(asdict(job))]
    if len(CORES) > 1 and not job.spin:
        command = ["taskset", "-c", str(CORES[-1]), *command]
    path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path}
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) for _ in range(job.processes)
    ]
    if job.rate:
        asyncio.run(feed(job))
    if job.processes > 1:
        asyncio.run(until_empty(job))
        for process in processes:
            process.terminate()
    figures = together([read(process, f"{scenario.name}: {contender}") for process in processes])
    if figures["count"] != job.count:
        raise SystemExit(f"{scenario.name}: {contender} handled {figures['count']:.0f} of {job.count} messages")
    left = asyncio.run(drop(job))
    if left or figures["repeats"]:
        raise SystemExit(f"{scenario.name}: {contender} left {left} messages and repeated {figures['repeats']:.0f}")
    return figures


def read(process: subprocess.Popen[str], name: str) -> Figures:
    out, _ = process.communicate(timeout=900)
    if process.returncode or not out.strip():
        raise SystemExit(f"{name} failed")
    found: Figures = json.loads(out.strip().splitlines()[-1])
    return found


def together(figures: list[Figures]) -> Figures:
    """The figures of several processes that shared one queue."""
    if len(figures) == 1:
        return figures[0]
    busy = [each for each in figures if each["count"]]
    span = max(each["ended"] for each in busy) - min(each["began"] for each in busy)
    return {key: sum(each[key] for each in figures) for key in ("count", "cpu", "peak", "repeats")} | {"seconds": span}


async def until_empty(job: Job) -> None:
    """Return when nothing waits in the queue any more; what is under way ends in a drain."""
    connection = await aiormq.connect(job.rabbitmq)
    channel = await connection.channel()
    while (await channel.queue_declare(job.queue, passive=True)).message_count:  # noqa: ASYNC110 (the broker's)
        await asyncio.sleep(0.1)
    await connection.close()


async def declare_holdfast(job: Job) -> None:
    """As its worker would: the messages are to be there before it is."""
    sys.path[:0] = [str(HERE), str(HERE / "contenders")]
    from holdfast_ import a_worker

    from holdfast.broker import open_broker

    worker = a_worker(job, None)
    broker = await open_broker(worker.settings, lambda fact: None)
    await broker.declare(worker.topology())
    await broker.close()


async def feed(job: Job) -> None:
    """Publish at a steady rate; each message says when it was sent."""
    connection = await aiormq.connect(job.rabbitmq)
    channel = await connection.channel(publisher_confirms=False)
    while not (await channel.queue_declare(job.queue, passive=True)).consumer_count:  # noqa: ASYNC110 (the broker's)
        await asyncio.sleep(0.1)
    due = time.perf_counter()
    for number in range(job.count):
        due += 1 / job.rate
        if (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        body = json.dumps(an_order(number, size=job.size, sent=time.perf_counter())).encode()
        properties = aiormq.spec.Basic.Properties(
            delivery_mode=2, content_type="application/json", message_type="order", message_id=f"m-{number}"
        )
        await channel.basic_publish(body, exchange=job.queue, routing_key="order", properties=properties, wait=False)
    await channel.queue_declare(job.queue, passive=True)  # answered once all before it was written
    await connection.close()


def client() -> Path:
    """The C client, built if it is not there."""
    built = Path(tempfile.gettempdir()) / "holdfast-bench-client"
    if not built.exists() or built.stat().st_mtime < (HERE / "client.c").stat().st_mtime:
        try:
            subprocess.run(["cc", "-O2", "-o", str(built), str(HERE / "client.c"), "-lrabbitmq"], check=True)
        except (OSError, subprocess.CalledProcessError):
            raise SystemExit(
                "the C client was not built: install cc and librabbitmq-dev, or leave c out (--only)"
            ) from None
    return built


def measure(scenario: Scenario, rabbitmq: str, redis: str, runs: int, share: float) -> dict[str, Figures]:
    """Medians of each contender over interleaved runs."""
    found: dict[str, list[Figures]] = {name: [] for name in scenario.counts}
    for _ in range(runs if scenario.repeated else 1):
        for contender, count in scenario.counts.items():
            queue = f"bench-{uuid.uuid4().hex[:10]}"
            job = replace(scenario.job, rabbitmq=rabbitmq, queue=queue, count=max(10, int(count * share)))
            job = replace(job, redis=redis if job.idempotent else "")
            found[contender].append(run_once(scenario, contender, job))
    return {
        name: {key: statistics.median(run[key] for run in taken) for key in taken[0]} | {"runs": len(taken)}
        for name, taken in found.items()
    }


def show(console: Console, scenario: Scenario, found: dict[str, Figures]) -> None:
    table = Table(title=f"{scenario.name}: {scenario.title}", title_justify="left")
    for title in (
        "",
        "messages/s",
        "Holdfast is",
        "CPU ms/1000",
        "peak MB",
        *(["p50 ms", "p99 ms", "p99.9 ms"] * (scenario.job.rate > 0)),
    ):
        table.add_column(title, justify="left" if not title else "right")
    ours = found["holdfast"]["count"] / found["holdfast"]["seconds"] if "holdfast" in found else 0.0
    for name, figures in found.items():
        rate = figures["count"] / figures["seconds"]
        cells = [
            name,
            f"{rate:,.0f}",
            f"{ours / rate:.1f}x",
            f"{figures['cpu'] / figures['count'] * 1e6:.0f}",
            f"{figures['peak']:.0f}",
        ]
        cells += [f"{figures[key] * 1000:.2f}" for key in ("p50", "p99", "p999") if key in figures]
        table.add_row(*cells)
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenarios", nargs="*", default=list(SCENARIOS), help=f"of: {', '.join(SCENARIOS)}")
    parser.add_argument("--only", help="contenders, separated by commas")
    parser.add_argument("--quick", action="store_true", help="one run of a tenth of the messages")
    parser.add_argument("--smallest", action="store_true", help="one run of next to no messages, to see that it works")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write all figures here")
    arguments = parser.parse_args()
    share, runs = (0.002, 1) if arguments.smallest else (0.1, 1) if arguments.quick else (1.0, arguments.runs)
    console, all_found = Console(width=120), dict[str, Any]()
    with servers() as (rabbitmq, redis):
        for name in arguments.scenarios:
            if name not in SCENARIOS:
                raise SystemExit(f"no scenario {name!r}; there are {', '.join(SCENARIOS)}")
            scenario = SCENARIOS[name]
            if arguments.only:
                kept = {who: count for who, count in scenario.counts.items() if who in arguments.only.split(",")}
                scenario = replace(scenario, counts=kept)
            if scenario.counts:
                all_found[name] = measure(scenario, rabbitmq, redis, runs, share)
                show(console, scenario, all_found[name])
    if arguments.json:
        arguments.json.write_text(json.dumps({"runs": runs, "scenarios": all_found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
