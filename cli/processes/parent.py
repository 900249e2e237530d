"""The supervisor: it keeps N worker processes running, answers for all of them, and drains them together."""

import asyncio
import signal
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from ...broker import Pause
from ...config import Settings, environment
from ...events import ConfigurationError
from ...idempotency import Heart, StoreUnavailable, open_heart
from ...telemetry import (
    ClaimsEndangered,
    Emit,
    Endpoint,
    FactLog,
    Metrics,
    ProcessDied,
    ProcessStarted,
    Serving,
    configure_logging,
    fan_out,
    keep_running,
    metrics_of,
)
from ..load import load_worker
from ..signals import end_when_signalled, heed
from .child_process import ChildProcess
from .protocol import Assignment

if TYPE_CHECKING:
    from ...sql import Database

STEADY = 10.0
"""Seconds after which the death of a process is not one of several in a row."""

_RESTART_PAUSE = Pause(0.1, 30.0, jitter=0.0)
_TO_END = 20.0  # seconds after the grace period that a process has to end before it is killed
_TO_FREE = 5.0  # seconds in which a database answers that a dead process's relays are gone
_APPLICATION_METRICS = "PROMETHEUS_MULTIPROC_DIR"


def run_processes(target: str, *, processes: int, concurrency: int | None, only: tuple[str, ...]) -> int:
    """Run until a signal. Returns the exit code: 0 when all drained.

    Raises `ConfigurationError` where the worker cannot be loaded, or none of its processes can start.
    """
    end_when_signalled()
    worker = load_worker(target)
    worker.selected(only)
    settings = worker.settings
    settings.worker.with_concurrency(concurrency)
    if settings.broker.url.get_secret_value().startswith("memory:"):
        raise ConfigurationError("HOLDFAST_BROKER__URL: memory:// lives in one process; --processes needs a RabbitMQ")
    configure_logging(settings.log)
    with _application_metrics() as folder, ExitStack() as stack:
        metrics = Metrics()
        emit = fan_out((FactLog(), metrics))
        if settings.claims_url.startswith("memory:") and any(spec.claims(settings) for spec in worker.handlers):
            emit(ClaimsEndangered("memory:// keeps claims in each process by itself; --processes needs a Redis"))
        children = [ChildProcess(number, _template(target, concurrency, only)) for number in range(1, processes + 1)]
        databases = {spec.within for spec in worker.selected(only) if spec.within is not None}
        supervisor = Supervisor(children, settings, emit, folder, databases)
        endpoint = Endpoint(
            settings.http,
            collect=lambda: metrics_of([metrics.figures.memory, *(child.memory for child in children)]),
            live=supervisor.live,
            ready=supervisor.ready,
            others=_others(folder),
            emit=emit,
        )
        emit(Serving(endpoint.start()))
        stack.callback(endpoint.stop)
        return asyncio.run(supervisor.run())


class Supervisor:
    """The parent of N processes. One that ends by itself is reported, counted and replaced: after 0.1 s if it ran for
    `STEADY` seconds, else after 0.2 s, 0.4 s and so on, 30 s at most. If one fails before any was ready, all stop."""

    def __init__(
        self,
        children: list[ChildProcess],
        settings: Settings,
        emit: Emit,
        folder: Path | None,
        databases: Iterable["Database[Any]"] = (),
    ) -> None:
        self._databases = tuple(databases)
        self._children = children
        self._settings = settings
        self._emit = emit
        self._heart: Heart | None = open_heart(settings)
        self._freeing = asyncio.Lock()  # a heart has one connection, for one thread
        self._environment = {**environment(), **({_APPLICATION_METRICS: str(folder)} if folder else {})}
        self._folder = folder
        self._stopping = asyncio.Event()
        self._is_at_once = False
        self._refused: list[str] = []

    async def run(self) -> int:
        heed(self._hear)
        keeping = [keep_running("processes", partial(self._keep, child), self._emit) for child in self._children]
        codes = await asyncio.gather(*keeping)
        if self._refused:
            raise ConfigurationError(*dict.fromkeys(self._refused))
        return 0 if not any(codes) else 1

    def live(self) -> tuple[bool, Mapping[str, Any]]:
        """Whether every loop turns. Asked from the thread that serves."""
        still = {str(child.number): round(child.still(), 3) for child in self._children}
        live = max(still.values()) <= self._settings.worker.live_limit
        return live, {"live": live, "still": max(still.values()), "processes": still}

    def ready(self) -> tuple[bool, Mapping[str, Any]]:
        """Whether every process is ready. Asked from the thread that serves."""
        if self._stopping.is_set():
            return False, {"ready": False, "missing": ["draining"]}
        missing = [f"process {child.number}: {what}" for child in self._children for what in child.missing()]
        return not missing, {"ready": not missing, "missing": missing}

    def _hear(self, counts: bool) -> None:
        """A signal came: the first is handed on, the second means at once, if it counts."""
        if not self._stopping.is_set():
            self._stop()
        elif counts:
            self._is_at_once = True
            for child in self._children:
                child.end_at_once()

    def _stop(self) -> None:
        self._stopping.set()
        for child in self._children:
            child.signal(signal.SIGTERM)

    async def _keep(self, child: ChildProcess) -> int:
        """Keep a process running until `stop`, which this calls for one that failed before any was ready. Returns the
        exit code of the last one."""
        loop, failures = asyncio.get_running_loop(), 0
        while not self._stopping.is_set():
            began = loop.time()
            try:
                pid = child.running or await child.start(self._environment)
            except OSError as error:  # the machine has no memory or no process left: the others go on
                failures += 1
                await self._pause(child.number, 0, f"not started: {error}", failures)
                continue
            self._emit(ProcessStarted(child.number, pid))
            code = await self._until_it_ends(child)
            owner, relays, failed = child.owner, child.report.relays, child.report.failed
            how = _how(code, failed)
            child.clear()
            if self._stopping.is_set():
                if code in (0, -signal.SIGTERM):  # stopped before it had begun anything
                    return 0
                if not self._is_at_once:
                    self._emit(ProcessDied(child.number, pid, how, None))
                    await self._free(pid, owner, relays)
                return code
            if code > 0 and not any(child.was_ready for child in self._children):
                self._refused += failed
                self._stop()
                return code
            failures = 0 if loop.time() - began > STEADY else failures + 1
            await asyncio.gather(self._pause(child.number, pid, how, failures), self._free(pid, owner, relays))
        return 0

    async def _pause(self, number: int, pid: int, how: str, failures: int) -> None:
        again_in = _RESTART_PAUSE.seconds(failures, luck=1.0)
        self._emit(ProcessDied(number, pid, how, again_in))
        with suppress(TimeoutError):
            async with asyncio.timeout(again_in):
                await self._stopping.wait()

    async def _until_it_ends(self, child: ChildProcess) -> int:
        """Where all are to stop it has its grace period, and a little more."""
        ending = asyncio.create_task(child.ended())
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait({ending, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not ending.done():
            if not child.was_signalled:  # it was being started when the others were
                child.signal(signal.SIGTERM)
            await asyncio.wait({ending}, timeout=self._settings.worker.grace + _TO_END)
            if not ending.done():
                child.signal(signal.SIGKILL)
        return await ending

    async def _free(self, pid: int, owner: bytes | None, relays: tuple[str, ...]) -> None:
        """Whatever a dead process still holds is free at once, instead of when its lease ends."""
        if self._folder is not None:
            mark_process_dead(pid, str(self._folder))  # type: ignore[no-untyped-call]
        if self._heart is not None and owner is not None:
            async with self._freeing:
                with suppress(StoreUnavailable):
                    await asyncio.to_thread(self._heart.stop, owner)
        if relays:
            from ...outbox import free

            for database in self._databases:
                with suppress(Exception):  # its leases end by themselves
                    async with asyncio.timeout(_TO_FREE):
                        await free(database, self._settings.sql, relays)
                        await database.close()


def _template(target: str, concurrency: int | None, only: tuple[str, ...]) -> Assignment:
    return Assignment(target, 0, concurrency, only, -1, -1)


def _how(code: int, failed: tuple[str, ...]) -> str:
    ended = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
    return f"{ended}: {'; '.join(failed)}" if failed else ended


@contextmanager
def _application_metrics() -> Iterator[Path | None]:
    """Where the application's own `prometheus_client` metrics of all processes meet, if a folder can be made."""
    given = environment().get(_APPLICATION_METRICS)
    if given is not None:
        yield Path(given)
        return
    try:
        made = tempfile.TemporaryDirectory(prefix="holdfast-metrics-", ignore_cleanup_errors=True)
    except OSError:  # a read-only file system
        yield None
        return
    with made as folder:
        yield Path(folder)


def _others(folder: Path | None) -> CollectorRegistry:
    registry = CollectorRegistry()
    if folder is not None:
        MultiProcessCollector(registry, path=str(folder))  # type: ignore[no-untyped-call]
    return registry
