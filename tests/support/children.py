"""Workers in processes of their own: `holdfast run child_app:worker`, and what they say."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

from apps import APPS
from child_app import MARK
from waiting import LIMIT, Bell

from holdfast import Settings


class Child:
    """One process. `said` are the lines of its app, `log` are the others."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.said: list[str] = []
        self.log: list[str] = []
        self._process = process
        self.bell = Bell()
        self._reading = asyncio.create_task(self._read())

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
        assert self._process.stdin
        self._process.stdin.write(b"go\n")

    async def ended(self, within: float = LIMIT) -> int:
        """Its exit code; fails if it is still there after `within` seconds."""
        try:
            async with asyncio.timeout(within):
                code = await self._process.wait()
        except TimeoutError:
            raise AssertionError(f"still there after {within:g} s; said {self.said}; log {self.log[-20:]}") from None
        await self._reading
        return code

    async def close(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self.ended()

    async def _read(self) -> None:
        assert self._process.stdout
        async for raw in self._process.stdout:
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
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "holdfast", "run", f"{app}:worker", *(("--only", only) if only else ())),
        cwd=APPS,
        env=environment,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    child = Child(process)
    try:
        await child.until("attached", count=queues)
        yield child
    finally:
        await child.close()
