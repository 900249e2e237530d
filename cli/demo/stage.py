"""Where the demo's workers run: in processes of their own on a real RabbitMQ, or all in this one, in memory."""

import asyncio
import json
import signal
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from ... import Worker
from ...config import LogSettings, Settings, environment
from ...telemetry import configure_logging
from . import shop


class Books(Protocol):
    """What is kept of an act."""

    killed: set[str]

    def note(self, listener: str, order: int, life: str) -> None: ...

    def settled(self, outcome: str, handler: str, reason: str | None, event_id: str) -> None: ...


class Stage:
    """Starts, breaks and stops workers by name, and keeps the books from their log: JSON lines in one file."""

    def __init__(self, folder: Path, account: Books, workers: Mapping[str, Worker] = shop.WORKERS) -> None:
        self._workers = workers
        self._path = folder / "log"
        self._path.touch()
        self._log = self._path.open(errors="replace")
        self._rest = ""
        self._account = account
        self._attached: set[str] = set()
        self._lives: Counter[str] = Counter()

    async def start(self, name: str) -> None:
        """Start a worker and return once it consumes."""
        queues = {spec.queue for spec in self._workers[name].handlers}
        self._attached -= queues
        await self._launch(name)
        async with asyncio.timeout(60):
            while not queues <= self._attached:
                self._check(name)
                await asyncio.sleep(0.05)
                self.look()

    async def kill(self, name: str) -> str:
        """Break a worker in the middle of its work. Returns what was done to it."""
        report = await self._break(name)
        self.look()
        for spec in self._workers[name].handlers:
            self._account.killed.add(self._life(spec.name))
            self._lives[spec.name] += 1
        return report

    async def stop(self) -> list[str]:
        """Stop all workers in order. Returns their faults."""
        faults = await self._drain()
        self.look()
        self._log.close()
        return faults

    def look(self) -> None:
        """Read what was logged since the last look."""
        *lines, self._rest = (self._rest + self._log.read()).split("\n")
        for line in lines:
            if line.startswith("{"):
                self._note(json.loads(line))

    def _note(self, line: dict[str, str]) -> None:
        match line:
            case {"event": "done", "handler": handler, "order": order}:
                self._account.note(handler, int(order), self._life(handler))
            case {"event": "delivery.settled", "outcome": outcome, "handler": handler, "event_id": event_id}:
                self._account.settled(outcome, handler, line.get("reason"), event_id)
            case {"event": "consumer.attached", "queue": queue}:
                self._attached.add(queue)
            case _:
                pass

    def _life(self, handler: str) -> str:
        return f"{handler}-{self._lives[handler]}"

    async def _launch(self, name: str) -> None:
        raise NotImplementedError

    def _check(self, name: str) -> None:
        """Raise what keeps a worker from starting."""
        raise NotImplementedError

    async def _break(self, name: str) -> str:
        raise NotImplementedError

    async def _drain(self) -> list[str]:
        raise NotImplementedError


class Processes(Stage):
    """Each worker is `holdfast run` in a process of its own."""

    def __init__(
        self,
        url: str,
        claims: str,
        folder: Path,
        account: Books,
        workers: Mapping[str, Worker] = shop.WORKERS,
        module: str = shop.__name__,
        **variables: str,
    ) -> None:
        super().__init__(folder, account, workers)
        self._module = module
        self._children: dict[str, asyncio.subprocess.Process] = {}
        self._environment = {
            **environment(),
            "HOLDFAST_BROKER__URL": url,
            "HOLDFAST_BROKER__EXCHANGE": shop.EXCHANGE_OF_THE_DEMO,
            "HOLDFAST_IDEMPOTENCY__URL": claims,
            "HOLDFAST_IDEMPOTENCY__LEASE": "5",
            "HOLDFAST_LOG__FORMAT": "json",
            "HOLDFAST_LOG__LEVEL": "INFO",
            "HOLDFAST_HTTP__PORT": "0",
            "DEMO_BANK_FIXED": str(shop.fixed),
            **variables,
        }

    async def _launch(self, name: str) -> None:
        with self._path.open("ab") as output:
            self._children[name] = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "holdfast", "run", f"{self._module}:{name}"),
                stderr=output,
                stdin=asyncio.subprocess.DEVNULL,
                cwd=self._path.parent,
                env=self._environment,
            )

    def _check(self, name: str) -> None:
        if self._children[name].returncode is not None:
            raise RuntimeError(f"the {name} worker did not start:\n{self._path.read_text()[-2000:]}")

    async def _break(self, name: str) -> str:
        child = self._children[name]
        child.kill()
        await child.wait()
        return f"the {name} worker (process {child.pid}) was killed with SIGKILL while it worked"

    async def _drain(self) -> list[str]:
        running = {name: child for name, child in self._children.items() if child.returncode is None}
        for child in running.values():
            child.send_signal(signal.SIGTERM)
        for child in running.values():
            try:
                async with asyncio.timeout(45):
                    await child.wait()
            except TimeoutError:
                child.kill()
                await child.wait()
        codes = {name: child.returncode for name, child in self._children.items()}
        return [f"the {name} worker exited with {code} instead of 0" for name, code in codes.items() if code]


class OneProcess(Stage):
    """All workers on this loop and the in-process broker; a kill is a stop that waits for nothing."""

    def __init__(
        self, settings: Settings, folder: Path, account: Books, workers: Mapping[str, Worker] = shop.WORKERS
    ) -> None:
        super().__init__(folder, account, workers)
        self._running: dict[str, asyncio.Task[int]] = {}
        self._output = self._path.open("a", buffering=1)
        configure_logging(LogSettings(format="json"), self._output)
        for worker in self._workers.values():
            worker.configure(settings=settings)

    async def _launch(self, name: str) -> None:
        self._running[name] = asyncio.create_task(self._workers[name].run())

    def _check(self, name: str) -> None:
        if self._running[name].done():
            self._running[name].result()

    async def _break(self, name: str) -> str:
        self._workers[name].stop(now=True)
        interrupted = await self._running.pop(name)
        return f"the {name} worker was stopped at once, {interrupted} handlers were cut off"

    async def _drain(self) -> list[str]:
        for name in self._running:
            self._workers[name].stop()
        left = sum(await asyncio.gather(*self._running.values()))
        configure_logging(LogSettings(level="CRITICAL"))
        self._output.close()
        return [f"{left} deliveries were left unfinished"] if left else []
