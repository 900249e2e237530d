"""A child as its parent sees it: its process, the figures it counts, its last report. `child.py` is its program."""

import asyncio
import mmap
import os
import select
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

from ...telemetry.families import GAUGES
from ...telemetry.shared_figures import ROOM, reset
from .protocol import Assignment, Report, Reports

_SILENT = 5.0  # seconds without a report after which a child counts as one that does not answer


class ChildProcess:
    """One of the processes that a supervisor keeps running; `number` counts from 1.

    A process that ended is replaced, and its figures stay: counters go on where it left them."""

    def __init__(self, number: int, template: Assignment) -> None:
        self.number = number
        self.report = Report()
        self.process: asyncio.subprocess.Process | None = None
        self.was_ready = self.was_signalled = False
        self._template = template
        self._figures = _memory()
        self._heard = 0.0
        self._channel: socket.socket | None = None
        self._reports = Reports()
        self.memory = mmap.mmap(self._figures, ROOM)

    @property
    def owner(self) -> bytes | None:
        """The incarnation of its process in the claim store."""
        return bytes.fromhex(self.report.owner) if self.report.owner else None

    @property
    def running(self) -> int | None:
        """The number in the system of its process, if that has not ended."""
        return self.process.pid if self.process is not None and self.process.returncode is None else None

    async def start(self, environment: Mapping[str, str]) -> int:
        """Start a process that leads a group of its own: Ctrl-C in the terminal reaches the parent alone. Returns its
        number in the system."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        assignment = replace(self._template, number=self.number, figures=self._figures, channel=theirs.fileno())
        try:
            self.report, self._heard, self.was_signalled = Report(), time.monotonic(), False
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "holdfast.cli.processes.child", assignment.as_text()),
                pass_fds=(assignment.figures, assignment.channel),
                process_group=0,
                env=environment,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self._listen(ours)
        return self.process.pid

    def signal(self, number: signal.Signals) -> None:
        """Send its process a signal, if there is one."""
        if self.process is not None and self.process.returncode is None:
            self.was_signalled = True
            with suppress(ProcessLookupError):
                self.process.send_signal(number)

    def end_at_once(self) -> None:
        """Have its process end without a grace period."""
        if self._channel is not None:
            with suppress(OSError):
                self._channel.send(b"!")

    async def ended(self) -> int:
        """Wait for the end of its process. Returns the exit code, or minus the signal's number."""
        code = await self.process.wait() if self.process is not None else 0
        while self._channel is not None and select.select([self._channel], [], [], 0)[0]:
            self._read()  # its last words
        return code

    def clear(self) -> None:
        """Its process is gone, and with it whatever it held. What it forked may live on, and hold the channel open."""
        self._hang_up()
        self.process, self.report = None, Report()
        reset(self.memory, GAUGES)

    def missing(self) -> tuple[str, ...]:
        """What keeps it from being ready."""
        if self.process is None:
            return ("not running",)
        if self._silent() > _SILENT:
            return ("does not answer",)
        return self.report.missing

    def still(self) -> float:
        """For how long its loop has stood still, as far as is known."""
        return 0.0 if self.process is None else max(self.report.still, self._silent() - _SILENT)

    def _silent(self) -> float:
        return time.monotonic() - self._heard

    def _listen(self, channel: socket.socket) -> None:
        self._channel, self._reports = channel, Reports()
        asyncio.get_running_loop().add_reader(channel, self._read)

    def _read(self) -> None:
        try:
            data = self._channel.recv(65_536) if self._channel is not None else b""
        except BlockingIOError:
            return
        except OSError:
            data = b""
        for report in self._reports.feed(data):
            self.report, self._heard = report, time.monotonic()
            self.was_ready = self.was_ready or report.ready
        if not data:
            self._hang_up()

    def _hang_up(self) -> None:
        if self._channel is not None:
            asyncio.get_running_loop().remove_reader(self._channel)
            self._channel.close()
            self._channel = None


def _memory() -> int:
    """A file without a name: it needs no folder that can be written to, where the system has such files."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("holdfast-figures")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, ROOM)
    return descriptor
