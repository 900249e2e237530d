"""Workers in processes of their own: `holdfast run child_app:worker`, and what they say."""

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

from apps import APPS
from child_app import MARK
from commands import Process, start
from waiting import LIMIT, Bell

from holdfast import Settings


class Child:
    """One process. `said` are the lines of its app, `log` are the others."""

    def __init__(self, process: Process, given: int, output: asyncio.StreamReader) -> None:
        """`given` is the other end of its standard input, `output` that of what it writes."""
        self.said: list[str] = []
        self.log: list[str] = []
        self._process, self._given = process, given
        self.bell = Bell()
        self._reading = asyncio.create_task(self._read(output))

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    async def until(self, line: str, count: int = 1) -> None:
        """Wait until it has said a line, or lines that begin so, `count` times."""
        await self.bell.until_true(
            lambda: len(self.those(line)) >= count,
            lambda: f"not {count} {line!r}, but {self.said}; log {self.log[-20:]}",
        )

    def those(self, beginning: str) -> list[str]:
        """What it said that begins so."""
        return [said for said in self.said if said.startswith(beginning)]

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def let_go(self) -> None:
        """Let the handlers go on that wait for it."""
        os.write(self._given, b"go\n")

    async def ended(self, within: float = LIMIT) -> int:
        """Its exit code; fails if it is still there after `within` seconds."""
        try:
            code = await asyncio.to_thread(self._process.wait, within)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still there after {within:g} s; said {self.said}; log {self.log[-20:]}") from None
        await self._reading
        return code

    async def close(self) -> None:
        self._process.kill()
        await self.ended()
        os.close(self._given)

    async def _read(self, output: asyncio.StreamReader) -> None:
        async for raw in output:
            line = raw.decode().rstrip("\n")
            (self.said if line.startswith(MARK) else self.log).append(line.removeprefix(MARK))
            self.bell.ring()


async def until_said(children: Iterable[Child], holds: Callable[[], object]) -> None:
    """Wait until what these have said, together, is so."""
    children = list(children)
    heard = Bell(*(child.bell for child in children))
    await heard.until_true(holds, lambda: [child.said for child in children])


@asynccontextmanager
async def a_child(
    settings: Settings, app: str = "child_app", *, queues: int = 2, only: str | None = None, **variables: str
) -> AsyncIterator[Child]:
    """A worker process that is consuming its queues; killed at the end if it still runs."""
    broker, worker = settings.broker, settings.worker
    environment = os.environ | {
        "HOLDFAST_BROKER__URL": broker.url.get_secret_value(),
        "HOLDFAST_BROKER__EXCHANGE": broker.exchange,
        "HOLDFAST_HTTP__PORT": "0",
        "HOLDFAST_BROKER__MAX_DELAY": str(broker.max_delay),
        "HOLDFAST_IDEMPOTENCY__URL": settings.claims_url,
        "HOLDFAST_IDEMPOTENCY__LEASE": str(settings.idempotency.lease),
        "HOLDFAST_WORKER__CONCURRENCY": str(worker.concurrency),
        "HOLDFAST_WORKER__GRACE": str(worker.grace),
        "HOLDFAST_BROKER__QUEUE_TYPE": broker.queue_type,
        **variables,
    }
    (asked, given), (read, written) = os.pipe(), os.pipe()
    command = ("holdfast", "run", f"{app}:worker", *(("--only", only) if only else ()))
    process = start(command, APPS, environment, (asked, written, written))
    os.close(asked)
    os.close(written)
    output = asyncio.StreamReader()
    ending = asyncio.StreamReaderProtocol(output)
    await asyncio.get_running_loop().connect_read_pipe(lambda: ending, os.fdopen(read, "rb", 0))
    child = Child(process, given, output)
    try:
        await child.until("attached", count=queues)
        yield child
    finally:
        await child.close()
