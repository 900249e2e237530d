"""A handler that waits for ever in a thread of its own."""

import asyncio
import threading
from typing import Any

from holdfast import Worker

NAME = "stuck"

worker = Worker(NAME)


@worker.handler(f"{NAME}.stuck")
async def handle(event: dict[str, Any]) -> None:
    print("BEGAN", flush=True)
    await asyncio.to_thread(threading.Event().wait)
