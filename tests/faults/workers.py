"""Worker processes of a run: begun, followed by another when they die, asked for their figures, and ended."""

import asyncio
import json
import os
import re
import signal
import sys
import time
import urllib.request
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from apps import APPS
from commands import Process, ended
from commands import start as start_process
from fault_app import QUEUES
from ledgers import Fault, Series
from reader import Reader
from waiting import Bell, eventually

from holdfast import Settings
from holdfast.testing.servers import free_port

HERE = Path(__file__).parent
LEASE = 3.0
PATIENCE = 60.0
LATEST = 150.0
"""Seconds after which a worker takes from its queues at the latest, whatever else is broken meanwhile."""


@dataclass(slots=True, eq=False)
class WorkerProcess:
    """One worker process. `point` is where it dies when it is armed."""

    process: Process
    port: int
    log: Path
    url: str
    point: str
    leaving: bool = False
    stopped_at: float = 0.0
    follower: "WorkerProcess | None" = None
    how: str = "worker killed"
    attached: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def pid(self) -> int:
        return self.process.pid

    async def ended(self) -> int:
        """Wait for its end. Returns its exit code."""
        await self.gone.wait()
        return self.process.wait()


class Workers:
    """Each connects to one of `urls`. Whoever dies unasked is followed by another, which is noted as a fault."""

    def __init__(
        self,
        settings: Settings,
        folder: Path,
        urls: list[str],
        reader: Reader,
        faults: list[Fault],
        partitions: int,
    ) -> None:
        self.all: list[WorkerProcess] = []
        self.noted = Bell()
        self.well = folder / "well"
        self._settings, self._folder, self._urls, self._reader, self._faults = settings, folder, urls, reader, faults
        self._partitions, self._spawned = partitions, 0
        self._watching: set[asyncio.Task[None]] = set()

    async def start(self, point: str = "", url: str | None = None, **variables: str) -> WorkerProcess:
        """A worker that consumes all its queues; whoever dies unasked is followed by another. `variables` are added to
        its environment."""
        url = url or self._urls[self._spawned % len(self._urls)]
        self._spawned += 1
        port, broker, worker = free_port(), self._settings.broker, self._settings.worker
        log = self._folder / f"worker-{self._spawned}.log"
        environment = (
            {name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST_")}
            | {
                "HOLDFAST_BROKER__URL": url,
                "HOLDFAST_BROKER__EXCHANGE": self._settings.broker.exchange,
                "HOLDFAST_BROKER__HEARTBEAT": str(broker.heartbeat),
                "HOLDFAST_BROKER__MAX_DELAY": str(broker.max_delay),
                "HOLDFAST_IDEMPOTENCY__URL": self._settings.claims_url,
                "HOLDFAST_IDEMPOTENCY__PREFIX": self._settings.broker.exchange,
                "HOLDFAST_IDEMPOTENCY__LEASE": str(LEASE),
                "HOLDFAST_WORKER__CONCURRENCY": str(worker.concurrency),
                "HOLDFAST_WORKER__GRACE": str(worker.grace),
                "HOLDFAST_HTTP__PORT": str(port),
                "HOLDFAST_LOG__FORMAT": "json",
                "HOLDFAST_LOG__SUCCESSES": "100000",
                "TEST_JOURNAL": str(self._folder / "journal"),
                "TEST_WELL": str(self.well),
                "TEST_NAME": self._settings.broker.exchange,
                "TEST_POINT": point,
                "TEST_PARTITIONS": str(self._partitions),
            }
            | variables
        )
        with log.open("wb") as output:
            files = (None, output.fileno(), output.fileno())
            program, path = str(APPS / "fault_app.py"), [str(HERE), *filter(None, sys.path)]
            process = start_process((program,), self._folder, environment, files, path=path)
        child = WorkerProcess(process, port, log, url, point)
        self.all.append(child)
        self._watching.add(asyncio.create_task(self._watch(child)))
        return child

    async def until_attached(self, child: WorkerProcess, within: float = PATIENCE) -> None:
        """Return when it takes from all its queues. Fails with the end of its log."""

        queues = len(QUEUES) + (self._partitions if self._partitions > 1 else 0)

        def is_attached() -> bool:
            self._reader.read()
            return self._reader.attached[child.pid] >= queues

        try:
            await eventually(lambda: is_attached() or child.gone.is_set(), within=within, every=0.05)
        except AssertionError:
            raise AssertionError(f"not attached within {within:g} s: {child.log.read_text()[-3000:]}") from None
        if is_attached():
            child.attached.set()

    async def _watch(self, child: WorkerProcess) -> None:
        await ended(child.process)
        child.gone.set()
        if child.leaving:
            return
        at = child.stopped_at or self._reader.died(child.pid) or time.monotonic()
        child.follower = follower = await self.start(url=child.url)
        with suppress(AssertionError):
            await self.until_attached(follower, within=LATEST)
        what = child.how if child.stopped_at or not child.point else f"worker killed {child.point}"
        self._faults.append(Fault(what, at, time.monotonic(), "its process", child.pid))
        self.noted.ring()

    def living(self) -> list[WorkerProcess]:
        return [child for child in self.all if not child.gone.is_set()]

    async def owner(self, queue: str) -> WorkerProcess:
        """The worker that owns an ordered queue, once one does."""
        owners = list[WorkerProcess]()

        async def known() -> bool:
            living = self.living()
            owned = await asyncio.gather(*(asyncio.to_thread(figure, child, OWNED, queue) for child in living))
            owners[:] = [child for child, own in zip(living, owned, strict=True) if own and not child.gone.is_set()]
            return bool(owners)

        await eventually(known, within=PATIENCE, every=0.05)
        return owners[0]

    async def stop(self, child: WorkerProcess) -> None:
        """Tell one to stop, and return when its process has ended well."""
        child.leaving = True
        child.process.send_signal(signal.SIGTERM)
        assert await _ended(child) == 0, child.log.read_text()[-3000:]

    def kill(self, child: WorkerProcess) -> None:
        child.stopped_at = time.monotonic()
        child.process.kill()

    async def followed(self, child: WorkerProcess) -> None:
        """Return when it is gone and its follower takes its place."""
        await child.gone.wait()
        latest = LATEST + PATIENCE
        await self.noted.until_true(lambda: any(fault.pid == child.pid for fault in self._faults), within=latest)
        if (follower := child.follower) and not (follower.attached.is_set() or follower.gone.is_set()):
            raise AssertionError(f"no follower within {LATEST:g} s: {follower.log.read_text()[-3000:]}")

    async def leave(self, asked: list[WorkerProcess]) -> dict[int, int]:
        """Tell them to stop; return how each process ended."""
        for child in asked:
            child.leaving = True
            child.process.send_signal(signal.SIGTERM)
        return {child.pid: await _ended(child) for child in asked}

    async def close(self) -> None:
        for child in self.all:
            child.leaving = True
            child.process.kill()
            await child.gone.wait()
        for task in self._watching:
            task.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)


async def _ended(child: WorkerProcess) -> int:
    try:
        async with asyncio.timeout(15):
            return await child.ended()
    except TimeoutError:
        child.process.kill()
        await child.ended()
        return -1000


_SETTLED = re.compile(r"holdfast_messages_settled_total\{(.*)\} (\S+)")
_IN_FLIGHT = re.compile(r"holdfast_in_flight\{.*\} (\S+)")
_LABEL = re.compile(r'(\w+)="([^"]*)"')


def scraped(child: WorkerProcess) -> dict[Series, int]:
    """What its metrics say of deliveries that were settled."""
    counts: Counter[Series] = Counter()
    for labels, figure in _SETTLED.findall(_metrics(child)):
        told = dict(_LABEL.findall(labels))
        counts[child.pid, told["queue"], told["outcome"]] += int(float(figure))
    return dict(counts)


def under_way(child: WorkerProcess) -> bool:
    """Whether its metrics tell of a delivery under way, or it does not answer."""
    try:
        return any(float(figure) for figure in _IN_FLIGHT.findall(_metrics(child)))
    except OSError:
        return not child.gone.is_set()


OWNED, HELD = "holdfast_partitions_owned", "holdfast_held_keys"


def figure(child: WorkerProcess, name: str, queue: str) -> float:
    """A figure of a queue in its metrics; 0 where it does not answer."""
    try:
        lines = re.findall(rf"{name}\{{(.*)\}} (\S+)", _metrics(child))
    except OSError:
        return 0.0
    return sum(float(value) for labels, value in lines if dict(_LABEL.findall(labels))["queue"] == queue)


def _metrics(child: WorkerProcess) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{child.port}/metrics", timeout=10) as response:
        return str(response.read().decode())


def logged(child: WorkerProcess) -> dict[Series, int]:
    """The same, from its log."""
    counts: Counter[Series] = Counter()
    with child.log.open(errors="replace") as lines:
        for line in lines:
            if '"outcome"' in line:
                told = json.loads(line)
                counts[child.pid, told["queue"], told["outcome"]] += 1
    return dict(counts)
