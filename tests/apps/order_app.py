"""An ordered worker for a process of its own. What its handler does are lines of a file that outlives it."""

import asyncio
import os
from pathlib import Path
from zlib import crc32

from child_app import tell

from holdfast import Context, Event, Ordered, Reject, Retry, RetryLater, Worker, fixed, load_settings

LEDGER = Path(os.environ.get("TEST_LEDGER", "ledger"))
PARTITIONS = int(os.environ.get("TEST_PARTITIONS", "1"))
FAILING = int(os.environ.get("TEST_FAILING", "6"))  # of a hundred events, the share that fails once or twice


class Placed(Event, type="ordering.placed", key="order"):
    order: str
    number: int


def note(*words: object) -> None:
    """One line, written at once."""
    with LEDGER.open("a") as ledger:
        ledger.write(" ".join(map(str, words)) + "\n")


settings = load_settings()
worker = Worker(f"{settings.broker.exchange}.shop", settings=settings, listeners=[tell])


@worker.handler(
    Placed, ordered=Ordered(partitions=PARTITIONS), retry=Retry(attempts=5, backoff=fixed(0.1, jitter=True))
)
async def project(event: Placed, ctx: Context) -> None:
    where = (event.order, event.number, ctx.fence, os.getpid())
    note("began", *where)
    if event.number < 0:
        raise RetryLater(3600) if event.number < -1 else Reject("never")
    luck = crc32(f"{event.order}/{event.number}".encode()) % 100
    if luck < FAILING and ctx.attempt <= 1 + luck % 2:
        note("failed", *where)
        raise ValueError("not now")
    await asyncio.to_thread(note, "ended", *where)
