"""One run of one contender: a process of its own, pinned to one core, and the proof that its work was done."""

import asyncio
import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from queues import HERE, account, feed, prepare, until_empty
from work import Job

CORES = sorted(os.sched_getaffinity(0))
Figures = dict[str, Any]


@contextmanager
def kept_to(cores: list[int]) -> Iterator[None]:
    """This process, and what it starts, run on these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def run_once(name: str, contender: str, job: Job) -> Figures:
    """The figures of one run. Ends the program where a message was lost, left behind or handled twice."""
    asyncio.run(prepare(job, contender))
    command = _c(job) if contender == "c" else [sys.executable, str(HERE / "contenders" / f"{contender}_.py")]
    command += [] if contender == "c" else [json.dumps(asdict(job))]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])}
    with kept_to(CORES if job.spin else CORES[-1:]):
        processes = [
            subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) for _ in range(job.processes)
        ]
    try:
        with kept_to(CORES[:1]):
            if job.rate:
                asyncio.run(feed(job))
            if job.processes > 1:
                asyncio.run(until_empty(job))
                for process in processes:
                    process.terminate()
        figures = together([_figures(process, f"{name}: {contender}") for process in processes])
    finally:
        for process in processes:
            process.kill()
    amiss = asyncio.run(account(job, contender))
    amiss += [f"{figures['count']} of {job.count} messages"] if figures["count"] != job.count else []
    amiss += [f"{figures['repeats']} came twice"] if figures["repeats"] else []
    if amiss:
        raise SystemExit(f"{name}: {contender}: {', '.join(amiss)}")
    return figures


def together(figures: list[Figures]) -> Figures:
    """The figures of several processes that shared one queue."""
    if len(figures) == 1:
        return figures[0]
    busy = [each for each in figures if each["count"]]
    span = max(each["ended"] for each in busy) - min(each["began"] for each in busy)
    sums = {key: sum(each[key] for each in figures) for key in ("count", "cpu", "peak", "repeats")}
    return sums | {"seconds": span, "latencies": []}


def _figures(process: subprocess.Popen[str], name: str) -> Figures:
    out, _ = process.communicate(timeout=900)
    if process.returncode or not out.strip():
        raise SystemExit(f"{name} failed")
    found: Figures = json.loads(out.strip().splitlines()[-1])
    return found


def _c(job: Job) -> list[str]:
    to, last = urlsplit(job.rabbitmq), job.prefetch if job.role == "consume" else job.in_flight
    host, user, password = to.hostname or "localhost", to.username or "guest", to.password or "guest"
    address = [host, str(to.port or 5672), unquote(user), unquote(password), unquote(to.path[1:]) or "/"]
    return [str(_client()), job.role, *address, job.queue, str(job.count), str(last)]


@functools.cache
def _client() -> Path:
    """The C client, built once for all of a run's figures."""
    built = Path(_folder().name) / "client"
    try:
        subprocess.run(["cc", "-O2", "-o", str(built), str(HERE / "client.c"), "-lrabbitmq"], check=True)
    except (OSError, subprocess.CalledProcessError):
        raise SystemExit(
            "the C client was not built: install cc and librabbitmq-dev, or leave it out (--without c)"
        ) from None
    return built


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="holdfast-bench-")
