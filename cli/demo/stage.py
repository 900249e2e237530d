"""Where the demo's workers run: in processes of their own on a real RabbitMQ, or all in this one, in memory."""

import asyncio
import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from ...config import Settings, environment
from ...telemetry import Attached, Fact, Settled
from . import shop
from .account import Account
from .ledger import Entry, Tail


class Stage(Protocol):
    """Starts, breaks and stops workers by name, and keeps the books up to date."""

    async def start(self, name: str) -> None: ...
    async def kill(self, name: str) -> str: ...
    async def stop(self) -> list[str]: ...
    def look(self) -> None: ...


class Processes:
    """Each worker is `holdfast run` in a process of its own; books are kept from the ledger and the JSON logs."""

    def __init__(self, url: str, claims: str, folder: Path, account: Account) -> None:
        self._url = url
        self._claims = claims
        self._folder = folder
        self._account = account
        self._children: dict[str, asyncio.subprocess.Process] = {}
        self._ledger = Tail(folder / "ledger")
        self._logs: dict[str, Tail] = {}
        self._attached: set[str] = set()

    async def start(self, name: str) -> None:
        """Start a worker and return once it consumes."""
        log = self._folder / f"{name}.log"
        self._attached.discard(name)
        with log.open("ab") as output:
            self._children[name] = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "holdfast", "run", f"holdfast.cli.demo.shop:{name}"),
                stderr=output,
                stdin=asyncio.subprocess.DEVNULL,
                cwd=self._folder,
                env=self._environment(),
            )
        self._logs.setdefault(name, Tail(log))
        async with asyncio.timeout(60):
            while name not in self._attached:
                if self._children[name].returncode is not None:
                    raise RuntimeError(f"the {name} worker did not start:\n{log.read_text()[-2000:]}")
                await asyncio.sleep(0.05)
                self.look()

    async def kill(self, name: str) -> str:
        """SIGKILL, in the middle of its work."""
        child = self._children[name]
        self._account.killed.add(child.pid)
        child.kill()
        await child.wait()
        return f"the {name} worker (process {child.pid}) was killed with SIGKILL while it worked"

    async def stop(self) -> list[str]:
        """SIGTERM to all. Returns what did not end as it should."""
        faults = []
        for child in self._children.values():
            with suppress(ProcessLookupError):
                child.send_signal(signal.SIGTERM)
        for name, child in self._children.items():
            try:
                async with asyncio.timeout(45):
                    code = await child.wait()
            except TimeoutError:
                child.kill()
                code = await child.wait()
            if code != 0:
                faults.append(f"the {name} worker exited with {code} instead of 0")
        self.look()
        return faults

    def look(self) -> None:
        for line in self._ledger.lines():
            self._account.note(Entry(**json.loads(line)))
        for name, tail in self._logs.items():
            for line in tail.lines():
                self._read_log(name, line)

    def _read_log(self, name: str, line: str) -> None:
        if not line.startswith("{"):
            return
        fact = json.loads(line)
        match fact.get("event"):
            case "consumer.attached":
                self._attached.add(name)
            case "delivery.settled":
                self._account.settled(fact["outcome"], fact["handler"], fact.get("reason"))
            case _:
                pass

    def _environment(self) -> dict[str, str]:
        own = {
            "HOLDFAST_BROKER__URL": self._url,
            "HOLDFAST_BROKER__EXCHANGE": shop.EXCHANGE_OF_THE_DEMO,
            "HOLDFAST_IDEMPOTENCY__URL": self._claims,
            "HOLDFAST_IDEMPOTENCY__LEASE": "5",
            "HOLDFAST_LOG__FORMAT": "json",
            "HOLDFAST_HTTP__PORT": "0",
            "ORDER_SYSTEM_LEDGER": str(self._folder / "ledger"),
            "ORDER_SYSTEM_MENDED": str(shop.mended),
        }
        return {**environment(), **own}


class OneProcess:
    """All workers on this loop and the in-process broker; a kill is a stop that waits for nothing."""

    def __init__(self, settings: Settings, account: Account) -> None:
        self._account = account
        self._running: dict[str, asyncio.Task[int]] = {}
        self._incarnation = os.getpid()
        self._attached: set[str] = set()
        for worker in shop.WORKERS.values():
            worker.configure(settings=settings, listeners=[self._hear])
        shop.record = self._record

    async def start(self, name: str) -> None:
        """Start a worker and return once it consumes."""
        worker = shop.WORKERS[name]
        self._running[name] = asyncio.create_task(worker.run())
        while not worker.health().ready:
            if self._running[name].done():
                self._running[name].result()
            await asyncio.sleep(0.01)

    async def kill(self, name: str) -> str:
        """Cancel whatever runs and give everything back."""
        self._account.killed.add(self._incarnation)
        self._incarnation += 1
        shop.WORKERS[name].stop(now=True)
        interrupted = await self._running.pop(name)
        return f"the {name} worker was stopped at once, {interrupted} handlers were cut off"

    async def stop(self) -> list[str]:
        for name in self._running:
            shop.WORKERS[name].stop()
        left = await asyncio.gather(*self._running.values())
        return [f"{sum(left)} deliveries were left unfinished"] if sum(left) else []

    def look(self) -> None:
        """The books are kept as things happen."""

    def _record(self, entry: Entry) -> None:
        self._account.note(Entry(entry.listener, entry.order, entry.attempt, entry.phase, self._incarnation))

    def _hear(self, fact: Fact) -> None:
        match fact:
            case Settled():
                self._account.settled(fact.outcome, fact.handler, fact.reason)
            case Attached(queue):
                self._attached.add(queue)
            case _:
                pass
