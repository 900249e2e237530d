"""A worker in a process of its own whose handler never ends; prints its resident memory in KiB when asked."""

import asyncio
import sys
from pathlib import Path

from holdfast import Event, Worker, load_settings
from holdfast.telemetry import Attached, Fact


class Payment(Event, type="paid"):
    order: int


def resident() -> int:
    return next(
        int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS")
    )


async def main(url: str, exchange: str, claims: str) -> None:
    broker = {"url": url, "exchange": exchange, "max_delay": 60, "queue_type": "classic"}
    settings = load_settings(broker=broker, idempotency={"url": claims})
    attached = asyncio.Event()

    def note(fact: Fact) -> None:
        if isinstance(fact, Attached):
            attached.set()

    worker = Worker(f"{exchange}.w", settings=settings, listeners=[note])

    @worker.handler(Payment, timeout=3600)
    async def handle(event: Payment) -> None:
        await asyncio.Event().wait()

    running = asyncio.create_task(worker.run())
    await attached.wait()
    print(resident(), flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    print(resident(), flush=True)
    await running


asyncio.run(main(*sys.argv[1:]))
