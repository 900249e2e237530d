"""A handler that returns, hangs, blocks or ends its process, and notes it in a file (`holdfast run --processes`)."""

import asyncio
import os
import time
from pathlib import Path

import prometheus_client

from holdfast import Context, Event, Worker

NAME = "crew"
LEDGER, GO = Path("ledger"), Path("go")


class Paid(Event, type=f"{NAME}.paid"):
    order: str
    does: str = "return"


worker = Worker(NAME)
seen = prometheus_client.Counter("shop_seen", "Orders seen.")


def note(word: str, order: str) -> None:
    with LEDGER.open("a") as ledger:
        ledger.write(f"{word} {order} {os.getpid()}\n")


@worker.handler(Paid, timeout=600)
async def handle(event: Paid, ctx: Context) -> None:
    seen.inc()
    note("began", event.order)
    match event.does:
        case "hang":
            while not GO.exists():
                await asyncio.sleep(0.02)
        case "die":
            os._exit(3)
        case "block":
            while not GO.exists():
                time.sleep(0.02)  # noqa: ASYNC251 (it blocks the loop)
        case _:
            await asyncio.sleep(0.005)
    note("done", event.order)
