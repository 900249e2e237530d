"""The work that every contender does, and how one measures itself. Run in a process of its own for each figure."""

import asyncio
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel


class Order(BaseModel):
    """320 bytes as JSON."""

    number: int
    customer: str
    total: str
    sent: float
    note: str


def an_order(number: int, *, size: int = 320, sent: float = 0.0) -> dict[str, Any]:
    order = {"number": number, "customer": f"customer-{number:08}", "total": "19.90", "sent": sent, "note": ""}
    order["note"] = "x" * max(0, size - len(json.dumps(order)))
    return order


@dataclass(frozen=True)
class Job:
    """What the parent asks of a contender: see `run.py`."""

    role: str
    rabbitmq: str
    redis: str
    queue: str
    queue_type: str
    count: int
    in_flight: int = 1
    prefetch: int = 200
    concurrency: int = 64
    size: int = 320
    handlers: int = 1
    sleep: float = 0.0
    spin: int = 0
    idempotent: bool = False
    chain: bool = False
    rate: int = 0
    processes: int = 1
    headers: bool = False
    loop: str = "asyncio"

    @classmethod
    def read(cls) -> "Job":
        return cls(**json.loads(sys.argv[1]))


def run(job: Job, main: Coroutine[Any, Any, None]) -> None:
    """Run on the loop the job names: all of a comparison on the same one."""
    if job.loop == "uvloop":
        import uvloop

        uvloop.run(main)
    else:
        asyncio.run(main)


class Tally:
    """Counts what was handled. Time and CPU run from the first message to the last; every one must come once."""

    def __init__(self, count: int, then: Callable[[], None] = lambda: None) -> None:
        self.then = then
        self._count = count
        self._seen = bytearray(count)
        self._left = count
        self._began = self._ended = time.perf_counter()
        self._cpu = time.process_time()
        self.latencies: list[float] = []
        self.repeats = 0

    def handled(self, number: int, sent: float = 0.0) -> None:
        if self._left == self._count:
            self._began, self._cpu = time.perf_counter(), time.process_time()
        if sent:
            self.latencies.append(time.perf_counter() - sent)
        if self._seen[number]:
            self.repeats += 1
            return
        self._seen[number] = 1
        self._left -= 1
        self._ended = time.perf_counter()
        if not self._left:
            self.then()

    def report(self) -> None:
        """What one of several processes reports are its own messages alone."""
        seconds, cpu = self._ended - self._began, time.process_time() - self._cpu
        span = {"began": self._began, "ended": self._ended}
        tell(self._count - self._left, seconds, cpu, repeats=self.repeats, latencies=self.latencies, **span)


def tell(
    count: int, seconds: float, cpu: float, *, repeats: int = 0, latencies: list[float] | None = None, **more: float
) -> None:
    """Print the figures of this process for its parent."""
    status = Path("/proc/self/status").read_text()  # getrusage would tell the peak of the parent it was forked from
    peak = int(status.partition("VmHWM:")[2].split()[0]) / 1024
    figures = {"count": count, "seconds": seconds, "cpu": cpu, "peak": peak, "repeats": repeats} | more
    print(json.dumps(figures | {"latencies": latencies or []}), flush=True)


class Stopwatch:
    """Time and CPU of a block."""

    def __enter__(self) -> "Stopwatch":
        self._began, self._cpu = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *error: object) -> None:
        self.seconds, self.cpu = time.perf_counter() - self._began, time.process_time() - self._cpu


def leave_soon(tally: Tally) -> Callable[[], None]:
    """For frameworks that cannot be stopped from a handler: report, and end the process once the last ack has gone."""

    def leave() -> None:
        time.sleep(1.0)
        tally.report()
        os._exit(0)

    return lambda: threading.Thread(target=leave, daemon=True).start()
