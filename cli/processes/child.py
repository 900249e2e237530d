"""The program of a child, in its own process: `python -m holdfast.cli.processes.child ASSIGNMENT`."""

import asyncio
import mmap
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial

from ...consumer import Worker
from ...events import HoldfastError
from ...telemetry import (
    Emit,
    Fact,
    FactLog,
    LeaseTaken,
    Metrics,
    RelayJoined,
    SharedFigures,
    configure_logging,
    keep_turning,
)
from ...telemetry.shared_figures import ROOM
from ..load import load_worker
from ..run import Stopping, run, run_to_end
from ..signals import end_when_signalled, heed
from .protocol import Assignment, Report

_EVERY = 0.2  # seconds between two looks at the worker
_AT_LEAST = 1.0  # seconds between two reports that say the same
_TO_END = 15.0  # seconds after its grace period that a child without a parent has to end


class Channel:
    """Reports to the parent from a thread of its own, also while the loop is blocked, and keeps the figures that the
    parent reads fresh; tells this process to stop once the parent is gone."""

    def __init__(self, channel: socket.socket, emit: Emit | None = None) -> None:
        self._socket = channel
        self._emit = emit or FactLog()
        self._worker: Worker | None = None
        self._metrics: Metrics | None = None
        self._owner: str | None = None
        self._relays: tuple[str, ...] = ()
        self._sending = threading.Lock()
        self.end_at_once: Callable[[], object] = lambda: None
        """Called from the thread when the parent was told twice: signals of others, as of systemd, do not count."""

    def start(self) -> None:
        reporting = partial(keep_turning, "reports", self._run, self._emit)
        threading.Thread(target=reporting, name="holdfast-reports", daemon=True).start()

    def watch(self, worker: Worker, metrics: Metrics) -> None:
        self._worker, self._metrics = worker, metrics
        worker.configure(listeners=[metrics, self._listen])

    def failed(self, why: str) -> None:
        """Why this process could not start: the parent says it once for all."""
        self._send(Report(failed=tuple(why.splitlines())))

    def _listen(self, fact: Fact) -> None:
        match fact:
            case LeaseTaken(owner):
                self._owner = owner
            case RelayJoined(_, token) if token not in self._relays:
                self._relays += (token,)
                self._send(self._report())  # before it takes a lease
            case _:
                pass

    def _run(self) -> None:
        last, sent = None, float("-inf")
        while True:
            if select.select([self._socket], [], [], _EVERY)[0]:
                if not self._socket.recv(1):
                    break
                self.end_at_once()
            if self._metrics is not None:
                self._metrics.refresh()
            report = self._report()
            if replace(report, still=0.0) != last or report.still > 1 or time.monotonic() - sent > _AT_LEAST:
                self._send(report)
                last, sent = replace(report, still=0.0), time.monotonic()
        self._end()

    def _report(self) -> Report:
        if self._worker is None:
            return Report()
        health = self._worker.health()
        return Report(health.ready, health.missing, round(health.still, 3), self._owner, self._relays)

    def _send(self, report: Report) -> None:
        with self._sending, suppress(OSError):
            self._socket.sendall(report.as_line())

    def _end(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        grace = self._worker.settings.worker.grace if self._worker is not None else 0.0
        threading.Event().wait(grace + _TO_END)
        os._exit(1)


async def _until_told(worker: Worker, channel: Channel, assignment: Assignment) -> int:
    stopping = Stopping(worker)
    heed(lambda counts: stopping.hear(counts=False))
    channel.end_at_once = partial(asyncio.get_running_loop().call_soon_threadsafe, stopping.end_at_once)
    return await run_to_end(worker, stopping, assignment.concurrency, assignment.only, http=False)


def main() -> int:
    end_when_signalled()
    assignment = Assignment.from_text(sys.argv[1])
    memory = mmap.mmap(assignment.figures, ROOM)
    os.close(assignment.figures)
    channel = Channel(socket.socket(fileno=assignment.channel))
    channel.start()
    try:
        worker = load_worker(assignment.target)
        configure_logging(worker.settings.log, process=assignment.number)
        channel.watch(worker, Metrics(SharedFigures(memory)))
        return run(_until_told(worker, channel, assignment))
    except HoldfastError as error:
        channel.failed(str(error))
    except ExceptionGroup as group:
        known, unknown = group.split(HoldfastError)
        if known is None or unknown is not None:
            raise
        channel.failed("\n".join(map(str, known.exceptions)))
    return 1


if __name__ == "__main__":
    sys.exit(main())
